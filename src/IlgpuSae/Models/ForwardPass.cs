using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// One run of a model. Without a tape, each block works in a scope of its own, so memory is bounded by one block's
/// intermediate results and what hooks and the cache were given; with a tape everything lives in the caller's scope.
/// A hook only sees or replaces: what is computed never depends on who looks.
/// </summary>
internal sealed class ForwardPass : IDisposable
{
    private readonly ModelSpec _spec;
    private readonly ModelParameters _parameters;
    private readonly HookNames _names;
    private readonly RotaryTables? _rotary;
    private readonly TensorScope _scope;
    private readonly bool _recording;
    private readonly KeyValueCache? _past;
    private readonly int _first;
    private readonly List<HookFunction>?[]? _functions;
    private readonly bool[]? _wanted;
    private readonly ActivationCache? _cache;
    private readonly bool _stopWhenCaptured;
    private readonly HashSet<Tensor> _handedOut = new(ReferenceEqualityComparer.Instance);
    private TensorScope _work;
    private int _remaining;
    private bool _done;

    internal ForwardPass(HookedTransformer model, TensorScope scope, ForwardOptions options, Func<HookPoint, bool>? capture, bool stopWhenCaptured)
    {
        _spec = model.Spec;
        _parameters = model.Weights;
        _names = model.Hooks;
        _rotary = model.Rotary;
        _scope = scope;
        _recording = scope.Recorder is not null;
        _past = options.Cache;
        _first = _past?.Length ?? 0;
        _stopWhenCaptured = stopWhenCaptured;
        _work = _recording ? scope : new TensorScope(scope.Device);
        if (options.Hooks.Count > 0)
        {
            _functions = new List<HookFunction>?[_names.All.Count];
            foreach (var hook in options.Hooks)
                foreach (var point in _names.All)
                    if (hook.AppliesTo(point)) (_functions[point.Index] ??= []).Add(hook.Function);
        }

        if (capture is not null)
        {
            _cache = new ActivationCache(_names);
            _wanted = _names.All.Select(capture).ToArray();
            _remaining = _wanted.Count(w => w);
        }
    }

    /// <summary>What was captured so far.</summary>
    internal ActivationCache Cache => _cache ?? new ActivationCache(_names);

    /// <summary>Runs up to <paramref name="stop"/> (exclusive), or to the logits if it is null.</summary>
    /// <returns>The residual stream [batch, pos, d_model] or the logits [batch, pos, d_vocab]; null when everything wanted was captured before.</returns>
    internal Tensor? Run(Tensor tokens, int? stop, bool lastPositionOnly)
    {
        if (_stopWhenCaptured && _remaining == 0) return null;
        var x = Embed(tokens);
        for (var l = 0; l < (stop ?? _spec.NLayers) && !_done; l++)
        {
            NextScope(x);
            x = Block(l, x);
        }

        if (_done) return null;
        if (stop is not null) return HandOut(x);
        NextScope(x);
        x = Normalize(x, _parameters.Final, _names.Final);
        if (_done) return null;
        if (lastPositionOnly) x = Positions.Slice(_work, x, x.Shape[1] - 1, 1);
        var logits = Gemm.Multiply(_work, x, _parameters.Unembed, _parameters.UnembedBias, transposeB: true);
        return HandOut(SoftCap(logits, _spec.LogitSoftCap));
    }

    public void Dispose()
    {
        if (!_recording) _work.Dispose();
    }

    private Tensor Embed(Tensor tokens)
    {
        int batch = tokens.Shape[0], positions = tokens.Shape[1];
        var x = Embedding.Gather(_work, _parameters.Embed, tokens);
        if (_spec.EmbedScale != 1) x = Scale.By(_work, x, _spec.EmbedScale);
        x = At(_names.Embed, x);
        if (_done || _names.PosEmbed is not { } hook) return x;
        var ids = new int[batch * positions];
        for (var i = 0; i < ids.Length; i++) ids[i] = _first + _spec.PositionOffset + (i % positions);
        var p = Embedding.Gather(_work, _parameters.Positions!, _work.From<int>(ids, [batch, positions]));
        p = At(hook, p);
        return _done ? x : Add.Sum(_work, x, p);
    }

    private Tensor Block(int layer, Tensor x)
    {
        var w = _parameters.Blocks[layer];
        var h = _names.Blocks[layer];
        x = At(h.ResidPre, x);
        if (_done) return x;
        var normalized = Normalize(x, w.Ln1, h.Ln1);
        if (_done) return x;
        var attended = Attend(layer, w, h, normalized);
        if (_done) return x;
        if (w.Ln1Post is { } post1) attended = Normalize(attended, post1, h.Ln1Post!);
        if (_done) return x;
        attended = At(h.AttnOut, attended);
        if (_done) return x;
        var mid = Add.Sum(_work, x, attended);
        if (h.ResidMid is { } midHook) mid = At(midHook, mid);
        if (_done) return x;
        normalized = Normalize(_spec.ParallelBlock ? x : mid, w.Ln2, h.Ln2);
        if (_done) return x;
        var mlp = Mlp(w, h, normalized);
        if (_done) return x;
        if (w.Ln2Post is { } post2) mlp = Normalize(mlp, post2, h.Ln2Post!);
        if (_done) return x;
        mlp = At(h.MlpOut, mlp);
        return _done ? x : At(h.ResidPost, Add.Sum(_work, mid, mlp));
    }

    private Tensor Normalize(Tensor x, ModelParameters.Norm w, HookNames.NormHooks h)
    {
        if (_spec.Norm == NormKind.LayerNorm)
        {
            var deviation = At(h.Scale, LayerNorm.Scale(_work, x, _spec.Eps));
            return _done ? x : At(h.Normalized, LayerNorm.FromScale(_work, x, deviation, w.Weight, w.Bias));
        }

        var scale = At(h.Scale, RmsNorm.Scale(_work, x, _spec.Eps));
        if (_done) return x;
        // TransformerLens hooks RMSNorm before its weight and LayerNorm after weight and bias; so do we.
        var normalized = At(h.Normalized, RmsNorm.FromScale(_work, x, scale));
        return _done ? x : MultiplyRow.Forward(_work, normalized, w.Weight, _spec.NormWeightOffset);
    }

    private Tensor Attend(int layer, ModelParameters.Block w, HookNames.BlockHooks h, Tensor x)
    {
        var q = At(h.Q, Heads(x, w.WQ, w.BQ, _spec.NHeads));
        if (_done) return x;
        var k = At(h.K, Heads(x, w.WK, w.BK, _spec.NKvHeads));
        if (_done) return x;
        var v = At(h.V, Heads(x, w.WV, w.BV, _spec.NKvHeads));
        if (_done) return x;
        if (_rotary is not null)
        {
            q = At(h.RotQ!, Rotary.Apply(_work, q, _rotary.Cos, _rotary.Sin, _first, _spec.RotaryAdjacentPairs));
            if (_done) return x;
            k = At(h.RotK!, Rotary.Apply(_work, k, _rotary.Cos, _rotary.Sin, _first, _spec.RotaryAdjacentPairs));
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
        int window = _spec.WindowOf(layer), batch = q.Shape[0];
        var cached = _first > 0;
        int keys = cached ? _first + q.Shape[1] : k.Shape[1];
        if (!Looked(h.Scores) && !Looked(h.Pattern))
        {
            return PerSequence(q.Shape, b => Attention.Forward(_work, Q(b), K(b), V(b), scale, _first, window, _spec.AttentionSoftCap));
        }

        Shape square = [batch, _spec.NHeads, q.Shape[1], keys];
        var scores = At(h.Scores, PerSequence(square, b => Attention.Scores(_work, Q(b), K(b), scale, _first, window, _spec.AttentionSoftCap)));
        if (_done) return q;
        var pattern = At(h.Pattern, Softmax.Rows(_work, scores));
        return _done ? q : PerSequence(q.Shape, b => Attention.Mix(_work, Row(pattern, b), V(b)));

        // A cache's sequences do not lie side by side, so each is attended to on its own.
        Tensor PerSequence(Shape shape, Func<int, Tensor> one)
        {
            if (!cached || batch == 1) return one(0);
            var all = _work.New(shape);
            for (var b = 0; b < batch; b++)
            {
                using var target = all.Slice(b, 1);
                target.CopyFrom(one(b));
            }

            return all;
        }

        Tensor Row(Tensor t, int b) => !cached || batch == 1 ? t : _work.Own(t.Slice(b, 1));
        Tensor Q(int b) => Row(q, b);
        Tensor K(int b) => cached ? _past!.Keys(_work, layer, b) : k;
        Tensor V(int b) => cached ? _past!.Values(_work, layer, b) : v;
    }

    private Tensor Mlp(ModelParameters.Block w, HookNames.BlockHooks h, Tensor x)
    {
        var pre = At(h.MlpPre, Gemm.Multiply(_work, x, w.WGate ?? w.WIn, w.WGate is null ? w.BIn : w.BGate, transposeB: true));
        if (_done) return x;
        Tensor post;
        if (w.WGate is null)
        {
            post = Activate.Forward(_work, pre, _spec.Activation);
        }
        else
        {
            var linear = At(h.MlpPreLinear!, Gemm.Multiply(_work, x, w.WIn, w.BIn, transposeB: true));
            if (_done) return x;
            post = Multiply.Elementwise(_work, Activate.Forward(_work, pre, _spec.Activation), linear);
        }

        post = At(h.MlpPost, post);
        return _done ? x : Gemm.Multiply(_work, post, w.WOut, w.BOut, transposeB: true);
    }

    private Tensor Heads(Tensor x, Tensor weight, Tensor? bias, int heads)
    {
        var y = Gemm.Multiply(_work, x, weight, bias, transposeB: true);
        return Reshape.As(_work, y, [x.Shape[0], x.Shape[1], heads, _spec.DHead]);
    }

    private Tensor SoftCap(Tensor x, float cap) => cap == 0
        ? x
        : Scale.By(_work, Activate.Forward(_work, Scale.By(_work, x, 1 / cap), ActivationKind.Tanh), cap);

    private bool Looked(HookPoint point) => _functions?[point.Index] is not null || _wanted?[point.Index] == true;

    /// <summary>Runs what is attached to a hook point and keeps the result if it is wanted.</summary>
    private Tensor At(HookPoint point, Tensor x)
    {
        if (!Looked(point)) return x;
        x = HandOut(x);
        foreach (var function in _functions?[point.Index] ?? [])
        {
            var made = function(x, new HookSite(point, _scope, _first));
            if (made is null || ReferenceEquals(made, x)) continue;
            if (made.Shape != x.Shape || made.Type != x.Type || made.Device != x.Device)
                throw new ShapeException($"hook {point.Name}: its replacement is {made}, expected {x}");
            _handedOut.Add(made);
            x = made;
        }

        if (_wanted?[point.Index] == true)
        {
            _cache!.Add(point, x);
            if (--_remaining == 0 && _stopWhenCaptured) _done = true;
        }

        return x;
    }

    /// <summary>Moves a tensor to the caller's scope.</summary>
    private Tensor HandOut(Tensor x)
    {
        if (_recording || !_handedOut.Add(x)) return x;
        return _scope.Own(_work.Keep(x));
    }

    /// <summary>Ends the work of one block; only <paramref name="x"/> goes on.</summary>
    private void NextScope(Tensor x)
    {
        if (_recording) return;
        var old = _work;
        _work = new TensorScope(_scope.Device);
        if (!_handedOut.Contains(x)) _work.Own(old.Keep(x));
        old.Dispose();
    }
}
