using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Attention: what each head reads, queries, keys and values, scores and pattern, what each head adds.</summary>
internal sealed partial class ForwardPass
{
    /// <summary>
    /// Inputs that heads have for themselves, [batch, pos, heads, d_model]: only where a hook replaced one or gradients
    /// pass through it. Merely to read them changes nothing of what is computed.
    /// </summary>
    private readonly record struct OwnInputs(Tensor? Q, Tensor? K, Tensor? V);

    private OwnInputs HeadInputs(HookNames.BlockHooks h, Tensor x)
    {
        var shared = h.AttnIn is { } attnIn && Looked(attnIn) ? Seen(attnIn, RepeatHeads(x, _spec.NHeads)) : null;
        var q = Own(h.QInput, _spec.NHeads);
        var k = Own(h.KInput, _spec.NKvHeads);
        return new OwnInputs(q, k, Own(h.VInput, _spec.NKvHeads));

        Tensor? Own(HookPoint point, int heads)
        {
            if (_done || !Looked(point)) return shared;
            var seen = Seen(point, shared is null ? RepeatHeads(x, heads) : Reshape.As(_work, shared, shared.Shape));
            return seen ?? shared;
        }

        // What a hook made of an input; null if it is as it was.
        Tensor? Seen(HookPoint point, Tensor copies)
        {
            if (_done) return null;
            var seen = At(point, copies);
            return !ReferenceEquals(seen, copies) || _scope.Recorder?.Tracks(seen) == true ? seen : null;
        }
    }

    /// <summary>[batch, pos, d_model] -> [batch, pos, heads, d_model].</summary>
    private Tensor RepeatHeads(Tensor x, int heads)
    {
        int batch = x.Shape[0], positions = x.Shape[1], d = x.Shape[2], rows = batch * positions;
        var ids = new int[rows * heads];
        for (var i = 0; i < ids.Length; i++) ids[i] = i / heads;
        return Embedding.Gather(_work, Reshape.As(_work, x, [rows, d]), _work.From<int>(ids, [batch, positions, heads]));
    }

    /// <summary>
    /// Queries, keys or values, [batch, pos, heads, d_head]: one product for all heads, or, where each head reads an
    /// input of its own, every head's product with every input, of which those of head and input alike are taken.
    /// </summary>
    private Tensor Project(Tensor x, Tensor? own, ModelParameters.Block w, Tensor weight, Tensor? bias, int heads)
    {
        int batch = x.Shape[0], positions = x.Shape[1], width = _spec.DHead, rows = batch * positions;
        Shape shape = [batch, positions, heads, width];
        if (own is null) return Reshape.As(_work, Gemm.Multiply(_work, x, weight, bias, transposeB: true), shape);
        var read = _spec.NormPlacement == NormPlacement.Behind ? own : Normalize(own, w.Ln1, null, _spec.Norm);
        var all = Reshape.As(_work, Gemm.Multiply(_work, read, weight, transposeB: true), [rows * heads * heads, width]);
        var ids = new int[rows * heads];
        for (var i = 0; i < ids.Length; i++) ids[i] = (i * heads) + (i % heads);
        var y = Embedding.Gather(_work, all, _work.From<int>(ids, [batch, positions, heads]));
        if (bias is null) return y;
        return Reshape.As(_work, AddRow.Forward(_work, Reshape.As(_work, y, [batch, positions, heads * width]), bias), shape);
    }

    private Tensor Attend(int layer, ModelParameters.Block w, HookNames.BlockHooks h, Tensor x, OwnInputs own)
    {
        var q = At(h.Q, Project(x, own.Q, w, w.WQ, w.BQ, _spec.NHeads));
        if (_done) return x;
        var k = At(h.K, Project(x, own.K, w, w.WK, w.BK, _spec.NKvHeads));
        if (_done) return x;
        var v = At(h.V, Project(x, own.V, w, w.WV, w.BV, _spec.NKvHeads));
        if (_done) return x;
        if (w.QNorm is not null)
        {
            q = NormalizeHeads(q, w.QNorm, h.QNorm!);
            if (_done) return x;
            k = NormalizeHeads(k, w.KNorm!, h.KNorm!);
            if (_done) return x;
        }

        if (_spec.Positions == PositionKind.Rotary)
        {
            var tables = _model.RotaryOf(layer, _first + x.Shape[1]);
            q = At(h.RotQ!, Rotate(q, tables));
            if (_done) return x;
            k = At(h.RotK!, Rotate(k, tables));
            if (_done) return x;
        }

        _past?.Append(layer, k, v);
        var z = MixValues(layer, h, q, k, v);
        if (_done) return x;
        z = At(h.Z, z);
        if (_done) return x;
        var flat = Reshape.As(_work, z, [z.Shape[0], z.Shape[1], z.Shape[2] * z.Shape[3]]);
        if (Looked(h.Result))
        {
            var results = HeadResults(flat, w.WO);
            var seen = At(h.Result, results);
            if (_done) return x;
            // Only a replacement or a gradient makes the sum of the heads' results what the model goes on with.
            if (!ReferenceEquals(seen, results) || _scope.Recorder?.Tracks(seen) == true) return SumHeads(seen, w.BO);
        }

        return Gemm.Multiply(_work, flat, w.WO, w.BO, transposeB: true);
    }

    private Tensor NormalizeHeads(Tensor x, ModelParameters.Norm w, HookNames.NormHooks h)
    {
        if (_spec.QueryKeyNorm == QueryKeyNorm.EachHead) return Normalize(x, w, h, NormKind.RmsNorm);
        var flat = Reshape.As(_work, x, [x.Shape[0], x.Shape[1], x.Shape[2] * x.Shape[3]]);
        return Reshape.As(_work, Normalize(flat, w, h, NormKind.RmsNorm), x.Shape);
    }

    private Tensor Rotate(Tensor x, (Tensor Cos, Tensor Sin) tables)
    {
        if (_padding is null) return Rotary.Apply(_work, x, tables.Cos, tables.Sin, _first, _spec.RotaryAdjacentPairs);
        return BySequence(x.Shape, x.Shape[1], (b, first) =>
            Rotary.Apply(_work, Rows(x, b), tables.Cos, tables.Sin, first, _spec.RotaryAdjacentPairs));
    }

    /// <summary>
    /// What each head adds to the residual stream, [batch, pos, n_heads, d_model]: each token's z once a head, with the other
    /// heads set to zero, times W_O. n_heads times the work of the output product, and only when asked for.
    /// </summary>
    private Tensor HeadResults(Tensor z, Tensor output)
    {
        int batch = z.Shape[0], positions = z.Shape[1], heads = _spec.NHeads, width = z.Shape[2], rows = batch * positions;
        var ids = new int[rows * heads];
        for (var i = 0; i < ids.Length; i++) ids[i] = i / heads;
        var own = new float[heads * width];
        for (var h = 0; h < heads; h++) own.AsSpan((h * width) + (h * _spec.DHead), _spec.DHead).Fill(1);
        var copies = Embedding.Gather(_work, Reshape.As(_work, z, [rows, width]), _work.From<int>(ids, [rows, heads]));
        var masked = MultiplyRow.Forward(_work, Reshape.As(_work, copies, [rows, heads * width]), _work.From<float>(own, [heads * width]));
        return Gemm.Multiply(_work, Reshape.As(_work, masked, [batch, positions, heads, width]), output, transposeB: true);
    }

    /// <summary>[batch, pos, n_heads, d_model] -> [batch, pos, d_model].</summary>
    private Tensor SumHeads(Tensor results, Tensor? bias)
    {
        int batch = results.Shape[0], positions = results.Shape[1], heads = results.Shape[2], d = results.Shape[3], rows = batch * positions;
        var ones = new float[rows * heads];
        Array.Fill(ones, 1);
        var sum = Attention.Mix(_work, _work.From<float>(ones, [rows, 1, 1, heads]), Reshape.As(_work, results, [rows, heads, 1, d]));
        var y = Reshape.As(_work, sum, [batch, positions, d]);
        return bias is null ? y : AddRow.Forward(_work, y, bias);
    }

    /// <summary>z [batch, pos, n_heads, d_head]. Scores and pattern are written out only if somebody looks at them.</summary>
    private Tensor MixValues(int layer, HookNames.BlockHooks h, Tensor q, Tensor k, Tensor v)
    {
        var scale = _spec.ScaleOf(layer);
        int window = _spec.WindowOf(layer), keys = _first > 0 ? _first + q.Shape[1] : k.Shape[1];
        var slopes = _model.Slopes;
        if (!Looked(h.Scores) && !Looked(h.Pattern))
        {
            if (Whole) return Attention.Forward(_work, q, k, v, scale, 0, window, _spec.AttentionSoftCap, slopes);
            return BySequence(q.Shape, q.Shape[1], (b, first) =>
                Attention.Forward(_work, Rows(q, b), Keys(b), Values(b), scale, first, window, _spec.AttentionSoftCap, slopes));
        }

        Shape square = [q.Shape[0], _spec.NHeads, q.Shape[1], keys];
        var scores = At(h.Scores, Whole
            ? Attention.Scores(_work, q, k, scale, 0, window, _spec.AttentionSoftCap, slopes)
            : Squares(square, float.NegativeInfinity, (b, first) =>
                Attention.Scores(_work, Rows(q, b), Keys(b), scale, first, window, _spec.AttentionSoftCap, slopes)));
        if (_done) return q;
        var pattern = At(h.Pattern, Whole ? Softmax.Rows(_work, scores) : Squares(square, 0, (b, _) => Softmax.Rows(_work, Square(scores, b))));
        if (_done) return q;
        return Whole ? Attention.Mix(_work, pattern, v) : BySequence(q.Shape, q.Shape[1], (b, _) => Attention.Mix(_work, Square(pattern, b), Values(b)));

        // A cache's sequences do not lie side by side, so each is attended to on its own.
        Tensor Keys(int b) => _past is null || _first == 0 ? Rows(k, b) : _past.Keys(_work, layer, b);
        Tensor Values(int b) => _past is null || _first == 0 ? Rows(v, b) : _past.Values(_work, layer, b);
    }
}
