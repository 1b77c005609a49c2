using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// Batches whose sequences are attended to one by one: those of a key/value cache, which do not lie side by side, and
/// those with padding. A padded row is computed from its first token on as if it stood alone, so it gets the bits it
/// would get alone; what lies before is zero, or masked. Not recorded.
/// </summary>
internal sealed partial class ForwardPass
{
    /// <summary>The batch can be computed as it lies.</summary>
    private bool Whole => _padding is null && _first == 0;

    /// <summary>How many of this pass's tokens come before row <paramref name="b"/>'s first.</summary>
    private int Skipped(int b, int positions) => _padding is null ? 0 : Math.Clamp(_padding[b] - _first, 0, positions);

    /// <summary>The tokens of row <paramref name="b"/> in x [batch, pos, ...], as a view [1, tokens, ...].</summary>
    private Tensor Rows(Tensor x, int b)
    {
        var skipped = Skipped(b, x.Shape[1]);
        using var row = x.Slice(b, 1);
        var dims = x.Shape.Dims.ToArray();
        using var flat = row.Reshape(Shape.Create(dims.AsSpan(1)));
        using var part = flat.Slice(skipped, dims[1] - skipped);
        dims[0] = 1;
        dims[1] -= skipped;
        return _work.Own(part.Reshape(Shape.Create(dims)));
    }

    /// <summary>
    /// Computes a result [batch, pos, ...] row by row. <paramref name="one"/> gets the row and the position of its first
    /// token within its own sequence; it is not called for rows that have no token here.
    /// </summary>
    private Tensor BySequence(Shape shape, int positions, Func<int, int, Tensor> one)
    {
        var all = _work.New(shape);
        if (_padding is not null) all.Clear();
        for (var b = 0; b < shape[0]; b++)
        {
            if (Skipped(b, positions) == positions) continue;
            Rows(all, b).CopyFrom(one(b, FirstOf(b)));
        }

        return all;
    }

    /// <summary>Position, in row <paramref name="b"/>'s own sequence, of its first token in this pass.</summary>
    private int FirstOf(int b) => _padding is null ? _first : Math.Max(0, _first - _padding[b]);

    /// <summary>Scores or patterns [batch, heads, query, key] row by row; outside the rows' own tokens <paramref name="fill"/>.</summary>
    private Tensor Squares(Shape shape, float fill, Func<int, int, Tensor> one)
    {
        int heads = shape[1], queries = shape[2], keys = shape[3];
        if (_padding is null) return BySequence(shape, queries, one);
        // Only looked at while generating from prompts of different lengths: put together on the host.
        var values = new float[shape.Count];
        Array.Fill(values, fill);
        for (var b = 0; b < shape[0]; b++)
        {
            int skipped = Skipped(b, queries), before = _padding[b];
            if (skipped == queries) continue;
            var own = one(b, FirstOf(b)).ToArray<float>();
            var width = keys - before;
            for (var r = 0; r < own.Length / width; r++)
            {
                var (head, query) = Math.DivRem(r, queries - skipped);
                own.AsSpan(r * width, width).CopyTo(values.AsSpan((((((b * heads) + head) * queries) + skipped + query) * keys) + before));
            }
        }

        return _work.From<float>(values, shape);
    }

    /// <summary>Row <paramref name="b"/>'s own part of scores or patterns, [1, heads, its queries, its keys].</summary>
    private Tensor Square(Tensor x, int b)
    {
        int heads = x.Shape[1], queries = x.Shape[2], keys = x.Shape[3], skipped = Skipped(b, queries), before = _padding?[b] ?? 0;
        using var row = x.Slice(b, 1);
        if (before == 0 && skipped == 0) return _work.Own(row.Reshape(row.Shape));
        var values = row.ToArray<float>();
        var own = new float[heads * (queries - skipped) * (keys - before)];
        for (var r = 0; r < heads * (queries - skipped); r++)
        {
            var (head, query) = Math.DivRem(r, queries - skipped);
            values.AsSpan((((head * queries) + skipped + query) * keys) + before, keys - before).CopyTo(own.AsSpan(r * (keys - before)));
        }

        return _work.From<float>(own, [1, heads, queries - skipped, keys - before]);
    }
}
