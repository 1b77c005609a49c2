using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// One run of a model. Without a tape, each block works in a scope of its own, so memory is bounded by one block's
/// intermediate results and what hooks and the cache were given; with a tape everything lives in the caller's scope.
/// A hook only sees or replaces: what is computed never depends on who looks.
/// </summary>
internal sealed partial class ForwardPass : IDisposable
{
    private readonly ModelSpec _spec;
    private readonly ModelParameters _parameters;
    private readonly HookNames _names;
    private readonly HookedTransformer _model;
    private readonly int[]? _padding;
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
        _model = model;
        _scope = scope;
        _recording = scope.Recorder is not null;
        _past = options.Cache;
        _first = _past?.Length ?? 0;
        var padding = _past?.Padding ?? options.Padding;
        _padding = padding.Any(n => n > 0) ? [.. padding] : null;
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
        x = Normalize(x, _parameters.Final, _names.Final, _spec.Norm);
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
        if (_names.EmbedNorm is { } norm) x = Normalize(x, _parameters.EmbedNorm, norm, NormKind.LayerNorm);
        if (_done) return x;
        x = At(_names.Embed, x);
        if (_done || _names.PosEmbed is not { } hook) return x;
        var ids = new int[batch * positions];
        for (var i = 0; i < ids.Length; i++) ids[i] = Math.Max(0, _first + (i % positions) - (_padding?[i / positions] ?? 0));
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
        var inputs = HeadInputs(h, x);
        if (_done) return x;
        var behind = _spec.NormPlacement == NormPlacement.Behind;
        var normalized = behind ? x : Normalize(x, w.Ln1, h.Ln1, _spec.Norm);
        if (_done) return x;
        var attended = Attend(layer, w, h, normalized, inputs);
        if (_done) return x;
        if (behind) attended = Normalize(attended, w.Ln1, h.Ln1, _spec.Norm);
        else if (w.Ln1Post is { } post1) attended = Normalize(attended, post1, h.Ln1Post!, _spec.Norm);
        if (_done) return x;
        attended = At(h.AttnOut, attended);
        if (_done) return x;
        var mid = Add.Sum(_work, x, attended);
        if (h.ResidMid is { } midHook) mid = At(midHook, mid);
        if (_done) return x;
        var read = _spec.ParallelBlock ? x : mid;
        // Under a tape, a tensor of its own, so that its gradient is that of the MLP's input alone.
        if (Looked(h.MlpIn)) read = At(h.MlpIn, _recording ? Reshape.As(_work, read, read.Shape) : read);
        if (_done) return x;
        normalized = behind ? read : Normalize(read, w.Ln2, h.Ln2, _spec.Norm);
        if (_done) return x;
        var mlp = Mlp(w, h, normalized);
        if (_done) return x;
        if (behind) mlp = Normalize(mlp, w.Ln2, h.Ln2, _spec.Norm);
        else if (w.Ln2Post is { } post2) mlp = Normalize(mlp, post2, h.Ln2Post!, _spec.Norm);
        if (_done) return x;
        mlp = At(h.MlpOut, mlp);
        return _done ? x : At(h.ResidPost, Add.Sum(_work, mid, mlp));
    }

    /// <summary>A normalisation with its hooks; without <paramref name="h"/>, unseen (of inputs that heads have for themselves).</summary>
    private Tensor Normalize(Tensor x, ModelParameters.Norm? w, HookNames.NormHooks? h, NormKind kind)
    {
        if (kind == NormKind.LayerNorm)
        {
            var deviation = At(h?.Scale, LayerNorm.Scale(_work, x, _spec.Eps));
            return _done ? x : At(h?.Normalized, LayerNorm.FromScale(_work, x, deviation, w?.Weight, w?.Bias));
        }

        var scale = At(h?.Scale, RmsNorm.Scale(_work, x, _spec.Eps));
        if (_done) return x;
        // TransformerLens hooks RMSNorm before its weight and LayerNorm after weight and bias; so do we.
        var normalized = At(h?.Normalized, RmsNorm.FromScale(_work, x, scale));
        return _done || w?.Weight is null ? normalized : MultiplyRow.Forward(_work, normalized, w.Weight, _spec.NormWeightOffset);
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

    private Tensor SoftCap(Tensor x, float cap) => cap == 0
        ? x
        : Scale.By(_work, Activate.Forward(_work, Scale.By(_work, x, 1 / cap), ActivationKind.Tanh), cap);

    private bool Looked(HookPoint point) => _functions?[point.Index] is not null || _wanted?[point.Index] == true;

    /// <summary>Runs what is attached to a hook point and keeps the result if it is wanted.</summary>
    private Tensor At(HookPoint? point, Tensor x)
    {
        if (point is null || !Looked(point)) return x;
        x = HandOut(x);
        foreach (var function in _functions?[point.Index] ?? [])
        {
            var made = function(x, new HookSite(point, _scope, _first) { Padding = _padding ?? [] });
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
