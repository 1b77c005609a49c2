using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Evaluation;

/// <summary>
/// A hook's activation [batch, pos, ...] seen as rows, one a token: all trailing axes together, or one head of
/// [batch, pos, heads, d_head]. Chosen rows are read and put back by gathering, so it works on every device and the
/// rows that are not touched keep their bits.
/// </summary>
internal sealed class HookRows
{
    private readonly int _parts;
    private readonly int _part;

    /// <summary>Lays the rows out.</summary>
    /// <param name="shape">The activation's shape.</param>
    /// <param name="head">One head; null: everything.</param>
    /// <exception cref="InvalidInputException">No such head, or the activation has none.</exception>
    public HookRows(Shape shape, int? head)
    {
        if (shape.Rank < 3) throw new ShapeException($"hook: {shape} is not [batch, pos, ...]");
        Shape = shape;
        Tokens = shape[0] * shape[1];
        if (head is not { } h)
        {
            _parts = 1;
        }
        else
        {
            if (shape.Rank != 4) throw new InvalidInputException($"hook_head_index: {h}, but the activation {shape} has no heads");
            if (h < 0 || h >= shape[2]) throw new InvalidInputException($"hook_head_index: {h}, but there are {shape[2]} heads (0 to {shape[2] - 1})");
            (_parts, _part) = (shape[2], h);
        }

        Width = Tokens == 0 ? 0 : (int)(shape.Count / Tokens / _parts);
    }

    /// <summary>The activation's shape.</summary>
    public Shape Shape { get; }

    /// <summary>Rows: batch times positions.</summary>
    public int Tokens { get; }

    /// <summary>Numbers a row.</summary>
    public int Width { get; }

    /// <summary>The rows of some tokens.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="activation">The activation.</param>
    /// <param name="tokens">Which tokens, ascending; null: all.</param>
    /// <returns>F32 [tokens, <see cref="Width"/>].</returns>
    public Tensor Read(TensorScope scope, Tensor activation, int[]? tokens)
    {
        var table = Table(scope, activation);
        if (tokens is null && _parts == 1) return table;
        return GatherRows.Forward(scope, table, Indices(scope, tokens));
    }

    /// <summary>The activation with the rows of some tokens replaced.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="activation">The activation.</param>
    /// <param name="rows">F32 [tokens, <see cref="Width"/>].</param>
    /// <param name="tokens">Which tokens, ascending; null: all.</param>
    /// <returns>A tensor of the activation's shape; differentiable in <paramref name="rows"/>.</returns>
    public Tensor Write(TensorScope scope, Tensor activation, Tensor rows, int[]? tokens)
    {
        if (tokens is null && _parts == 1) return Reshape.As(scope, rows, Shape);
        var n = rows.Shape[0];
        var all = Tokens * _parts;
        var table = scope.New([n + all, Width]);
        Copy(table, 0, rows);
        Copy(table, n, Table(scope, activation));
        var order = new int[all];
        for (var i = 0; i < all; i++) order[i] = n + i;
        for (var i = 0; i < n; i++) order[Index(tokens is null ? i : tokens[i])] = i;
        var whole = Reshape.As(scope, GatherRows.Forward(scope, table, scope.From<int>(order, [all])), Shape);
        // The copies above are not recorded; the gradient of a row that was put in is that of its place.
        scope.Recorder?.Record(whole, [rows], gradient => [Read(scope, gradient, tokens)]);
        return whole;
    }

    private static void Copy(Tensor table, int row, Tensor rows)
    {
        using var part = table.Slice(row, rows.Shape[0]);
        part.CopyFrom(rows);
    }

    private Tensor Table(TensorScope scope, Tensor activation) => Reshape.As(scope, activation, [Tokens * _parts, Width]);

    private Tensor Indices(TensorScope scope, int[]? tokens)
    {
        var n = tokens?.Length ?? Tokens;
        var indices = new int[n];
        for (var i = 0; i < n; i++) indices[i] = Index(tokens is null ? i : tokens[i]);
        return scope.From<int>(indices, [n]);
    }

    private int Index(int token) => (token * _parts) + _part;
}
