using System.Text.Json;
using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>How a model is loaded.</summary>
public sealed record ModelLoadOptions
{
    /// <summary>The families one can load.</summary>
    public ModelFamilies Families { get; init; } = ModelFamilies.Builtin;

    /// <summary>Tensors that the architecture does not know are skipped rather than an error.</summary>
    public bool IgnoreUnknownTensors { get; init; }

    /// <summary>In which type the matrices lie in memory.</summary>
    public WeightStorage Storage { get; init; }

    /// <summary>
    /// On the CPU, matrices that the files have as they are wanted in memory are paged in from there as they are used, and
    /// take no memory that other programs could not have. The files must stay as they are while the model lives.
    /// </summary>
    public bool MapFiles { get; init; }

    /// <summary>Changes of the weights that make a model easier to read. They need F32, so nothing stays in 16 bits or in its file.</summary>
    public WeightProcessing Processing { get; init; } = WeightProcessing.None;

    /// <summary>Told what was done otherwise than asked, such as a processing that the model does not allow.</summary>
    public Action<string>? Note { get; init; }
}

/// <summary>
/// A transformer whose every intermediate result can be read, replaced and differentiated, under TransformerLens' names
/// and shapes. Weights are used as they are stored unless a <see cref="WeightProcessing"/> is asked for. Computes in F32.
/// Not for use by several threads at once.
/// </summary>
public sealed class HookedTransformer : IDisposable
{
    private readonly RotaryTables? _rotary;
    private readonly RotaryTables? _localRotary;

    internal HookedTransformer(ModelSpec spec, Device device, ModelParameters weights)
    {
        Spec = spec;
        Device = device;
        Weights = weights;
        Hooks = new HookNames(spec);
        if (spec.Positions == PositionKind.Rotary)
        {
            _rotary = new RotaryTables(spec, device);
            _localRotary = spec.LocalRotaryBase is { } local
                ? new RotaryTables(spec with { RotaryBase = local, RotaryScaling = RopeScaling.None }, device)
                : _rotary;
        }
        else if (spec.Positions == PositionKind.Alibi)
        {
            Slopes = new Tensor(device, [spec.NHeads]);
            Slopes.CopyFrom<float>(AlibiSlopes.For(spec.NHeads));
        }
    }

    /// <summary>What the model is made of.</summary>
    public ModelSpec Spec { get; }

    /// <summary>Where its weights lie and its kernels run.</summary>
    public Device Device { get; }

    /// <summary>Its hooks: names, shapes, layers.</summary>
    public HookNames Hooks { get; }

    /// <summary>Its parameters under the names of <see cref="ModelSpec.Parameters"/>: matrices as rows [out, in].</summary>
    public IReadOnlyDictionary<string, Tensor> Parameters => Weights.ByName;

    internal ModelParameters Weights { get; }

    /// <summary>ALiBi's slopes, F32 [n_heads]; null where the model has other positions.</summary>
    internal Tensor? Slopes { get; }

    /// <summary>Loads a Hugging Face folder: config.json and model.safetensors, whole or in shards.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="device">Where the model is to live.</param>
    /// <param name="options">How; null: the library's families, unknown tensors refused.</param>
    /// <exception cref="InvalidFileException">
    /// A file is missing or damaged, the architecture is unknown, or the weights do not fit the configuration.
    /// </exception>
    /// <exception cref="InvalidInputException">The weights do not fit the device's memory; nothing has been read.</exception>
    public static HookedTransformer Load(string folder, Device device, ModelLoadOptions? options = null)
    {
        options ??= new ModelLoadOptions();
        var spec = ReadSpec(folder, options.Families, out var family);
        using var files = SafetensorsFolder.Open(folder);
        var processing = options.Processing.For(spec, options.Note);
        var weights = new WeightLoader(files, family, spec, options with { Processing = processing }).Load(device);
        return Processed(spec, weights, device, processing);
    }

    /// <summary>A model with processed weights, beside this one; its parameters are copies in F32.</summary>
    /// <param name="processing">What to do.</param>
    /// <param name="note">Told what the model does not allow and is left out.</param>
    public HookedTransformer Process(WeightProcessing processing, Action<string>? note = null)
    {
        var weights = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        foreach (var (name, t) in Parameters)
        {
            var copy = new Tensor(Device, t.Shape);
            weights.Add(name, copy);
            copy.CopyFrom<float>(HostWeights.Read(t));
        }

        return Processed(Spec, weights, Device, processing.For(Spec, note));
    }

    /// <summary>The weights under TransformerLens' names W_E, W_U, W_Q, ... with all layers stacked. The caller disposes of it.</summary>
    public StackedWeights StackWeights() => new(this);

    /// <summary>Reads what a model is made of without its weights.</summary>
    /// <param name="folder">A Hugging Face folder.</param>
    /// <param name="families">The families one can load; null: the library's.</param>
    /// <exception cref="InvalidFileException">config.json is missing or wrong, or the architecture is unknown.</exception>
    public static ModelSpec ReadSpec(string folder, ModelFamilies? families = null) => ReadSpec(folder, families ?? ModelFamilies.Builtin, out _);

    /// <summary>
    /// A model with random weights: matrices normal with the given deviation, biases 0, normalisations that do nothing.
    /// The same seed gives the same model everywhere.
    /// </summary>
    /// <param name="spec">What it is made of.</param>
    /// <param name="device">Where it is to live.</param>
    /// <param name="seed">Seed of the weights.</param>
    /// <param name="deviation">Standard deviation of the matrices.</param>
    /// <exception cref="InvalidInputException">The sizes in <paramref name="spec"/> do not fit each other.</exception>
    public static HookedTransformer WithRandomWeights(ModelSpec spec, Device device, ulong seed, float deviation = 0.02f)
    {
        spec.Validate();
        var weights = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        ulong stream = 0;
        foreach (var (name, shape) in spec.Parameters())
        {
            var t = new Tensor(device, shape);
            weights.Add(name, t);
            if (shape.Rank == 2) RandomFill.Normal(t, seed, stream, 0, deviation);
            else Fill(t, name.EndsWith(".w", StringComparison.Ordinal) ? 1 - spec.NormWeightOffset : 0);
            stream++;
        }

        return new HookedTransformer(spec, device, new ModelParameters(spec, weights));
    }

    /// <summary>Runs the model.</summary>
    /// <param name="scope">Owns the result; on the model's device. Its recorder, if any, sees every operation.</param>
    /// <param name="tokens">I32 [batch, pos].</param>
    /// <param name="options">Hooks, where to stop, a cache.</param>
    /// <returns>Logits [batch, pos, d_vocab], or the residual stream [batch, pos, d_model] when stopped early.</returns>
    /// <exception cref="InvalidInputException">Tokens out of range, too many or none, an unknown hook, a wrong layer.</exception>
    public Tensor Forward(TensorScope scope, Tensor tokens, ForwardOptions? options = null) =>
        Run(scope, tokens, options, null, false).Output!;

    /// <summary>Runs the model and keeps activations.</summary>
    /// <param name="scope">Owns the result and the activations.</param>
    /// <param name="tokens">I32 [batch, pos].</param>
    /// <param name="names">Which hooks.</param>
    /// <param name="options">Hooks, where to stop, a cache.</param>
    /// <returns>What <see cref="Forward"/> returns, and the activations.</returns>
    /// <exception cref="InvalidInputException">As <see cref="Forward"/>.</exception>
    public (Tensor Output, ActivationCache Cache) RunWithCache(
        TensorScope scope, Tensor tokens, Func<HookPoint, bool> names, ForwardOptions? options = null)
    {
        var (output, cache) = Run(scope, tokens, options, names, false);
        return (output!, cache);
    }

    /// <summary>Runs the model and keeps activations.</summary>
    /// <param name="scope">Owns the result and the activations.</param>
    /// <param name="tokens">I32 [batch, pos].</param>
    /// <param name="names">Names separated by commas, <c>*</c> for anything, or <c>all</c>; see <see cref="HookNames.Select"/>.</param>
    /// <param name="options">Hooks, where to stop, a cache.</param>
    /// <returns>What <see cref="Forward"/> returns, and the activations.</returns>
    /// <exception cref="InvalidInputException">As <see cref="Forward"/>, or a name that matches nothing.</exception>
    public (Tensor Output, ActivationCache Cache) RunWithCache(TensorScope scope, Tensor tokens, string names = "all", ForwardOptions? options = null) =>
        RunWithCache(scope, tokens, Hooks.Select(names).ToHashSet().Contains, options);

    /// <summary>Activations alone: the model runs only until the last of them is there.</summary>
    /// <param name="scope">Owns the activations.</param>
    /// <param name="tokens">I32 [batch, pos].</param>
    /// <param name="names">Names separated by commas, <c>*</c> for anything; see <see cref="HookNames.Select"/>.</param>
    /// <param name="options">Hooks, a cache.</param>
    /// <exception cref="InvalidInputException">As <see cref="Forward"/>, or a name that matches nothing.</exception>
    public ActivationCache Activations(TensorScope scope, Tensor tokens, string names, ForwardOptions? options = null) =>
        Run(scope, tokens, options, Hooks.Select(names).ToHashSet().Contains, true).Cache;

    /// <summary>Cross-entropy of each next token.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="tokens">I32 [batch, pos], at least 2 positions.</param>
    /// <param name="options">Hooks.</param>
    /// <returns>[batch, pos - 1], in nats.</returns>
    /// <exception cref="InvalidInputException">As <see cref="Forward"/>, or fewer than 2 positions.</exception>
    public Tensor LossPerToken(TensorScope scope, Tensor tokens, ForwardOptions? options = null)
    {
        if (tokens.Shape.Rank == 2 && tokens.Shape[1] == 1)
            throw new InvalidInputException($"loss: tokens are {tokens.Shape}; a next token needs at least 2 positions");
        if (options?.StopAtLayer is { } stop) throw new InvalidInputException($"loss: needs logits, but the pass stops at layer {stop}");
        if (options?.Padding.Any(n => n > 0) == true) throw new InvalidInputException("loss: the batch is padded; give sequences of equal length, or one by one");
        return CrossEntropy.PerToken(scope, Forward(scope, tokens, options), tokens);
    }

    /// <summary>Mean cross-entropy of the next token.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="tokens">I32 [batch, pos], at least 2 positions.</param>
    /// <param name="options">Hooks.</param>
    /// <returns>[], in nats.</returns>
    /// <exception cref="InvalidInputException">As <see cref="LossPerToken"/>.</exception>
    public Tensor Loss(TensorScope scope, Tensor tokens, ForwardOptions? options = null) =>
        Reduce.Mean(scope, LossPerToken(scope, tokens, options));

    /// <summary>Token ids as the tensor the other methods take.</summary>
    /// <param name="scope">Owns the tensor.</param>
    /// <param name="rows">Sequences of equal length.</param>
    /// <returns>I32 [batch, pos].</returns>
    /// <exception cref="InvalidInputException">The lengths differ.</exception>
    public static Tensor Tokens(TensorScope scope, params IReadOnlyList<int[]> rows)
    {
        var length = rows.Count == 0 ? 0 : rows[0].Length;
        for (var r = 1; r < rows.Count; r++)
        {
            if (rows[r].Length != length)
                throw new InvalidInputException($"tokens: row {r} has {rows[r].Length} tokens, row 0 has {length}; a batch has rows of equal length");
        }

        return scope.From<int>(rows.SelectMany(r => r).ToArray(), [rows.Count, length]);
    }

    /// <summary>Gives the weights' memory back.</summary>
    public void Dispose()
    {
        Weights.Dispose();
        _rotary?.Dispose();
        _localRotary?.Dispose();
        Slopes?.Dispose();
    }

    /// <summary>cos and sin for at least <paramref name="positions"/> positions in one layer.</summary>
    internal (Tensor Cos, Tensor Sin) RotaryOf(int layer, int positions) => (Spec.WindowOf(layer) > 0 ? _localRotary : _rotary)!.For(positions);

    /// <summary>Logits [batch, 1, d_vocab] of the last position alone: the others need no unembedding.</summary>
    internal Tensor LastLogits(TensorScope scope, Tensor tokens, ForwardOptions options) =>
        Run(scope, tokens, options, null, false, lastPositionOnly: true).Output!;

    private static HookedTransformer Processed(ModelSpec spec, Dictionary<string, Tensor> weights, Device device, WeightProcessing processing)
    {
        try
        {
            if (processing.Any) spec = WeightProcessor.Apply(spec, weights, device, processing);
            return new HookedTransformer(spec, device, new ModelParameters(spec, weights));
        }
        catch
        {
            foreach (var t in weights.Values) t.Dispose();
            throw;
        }
    }

    private static ModelSpec ReadSpec(string folder, ModelFamilies families, out ModelFamily family)
    {
        if (!Directory.Exists(folder))
            throw new InvalidFileException(folder, "no such folder; a model is a folder with config.json and model.safetensors");
        var config = JsonConfig.Read(Path.Combine(folder, "config.json"));
        family = families.Of(config, out var architecture);
        var spec = family.ReadConfig(config, architecture) with
        {
            BosToken = config.Has("bos_token_id") ? config.GetInt("bos_token_id") : null,
            EosTokens = !config.TryGet("eos_token_id", out var eos) ? [] : eos.ValueKind == JsonValueKind.Array ? config.GetInts("eos_token_id") : [config.GetInt("eos_token_id")],
        };
        try
        {
            spec.Validate();
        }
        catch (InvalidInputException e)
        {
            throw new InvalidFileException(config.Path, e.Message, e);
        }

        return spec;
    }

    private static void Fill(Tensor t, float value)
    {
        var values = new float[t.Count];
        Array.Fill(values, value);
        t.CopyFrom<float>(values);
    }

    private (Tensor? Output, ActivationCache Cache) Run(
        TensorScope scope, Tensor tokens, ForwardOptions? options, Func<HookPoint, bool>? capture, bool stopWhenCaptured, bool lastPositionOnly = false)
    {
        options ??= ForwardOptions.Default;
        if (scope.Device != Device) throw new InvalidInputException($"model: the scope is on {scope.Device.Name}, the model on {Device.Name}");
        foreach (var hook in options.Hooks) hook.Check(Hooks);
        CheckTokens(tokens, options.Cache);
        if (options.Cache is not null && scope.Recorder is not null)
            throw new InvalidInputException("model: gradients do not pass through a key/value cache; run without one or without a tape");
        CheckPadding(tokens, options, scope);
        var stop = StopLayer(options.StopAtLayer);
        using var pass = new ForwardPass(this, scope, options, capture, stopWhenCaptured);
        var output = pass.Run(tokens, stop, lastPositionOnly);
        return (output, pass.Cache);
    }

    private static void CheckPadding(Tensor tokens, ForwardOptions options, TensorScope scope)
    {
        var padding = options.Padding;
        if (options.Cache is { Length: 0 } fresh) fresh.Begin(padding);
        if (padding.Count == 0) return;
        if (options.Cache is { Length: > 0 })
            throw new InvalidInputException("padding: the key/value cache has tokens already; padding is given with the first ones");
        if (padding.Count != tokens.Shape[0]) throw new InvalidInputException($"padding: {padding.Count} numbers for {tokens.Shape[0]} rows");
        for (var r = 0; r < padding.Count; r++)
        {
            if (padding[r] < 0 || padding[r] >= tokens.Shape[1])
                throw new InvalidInputException($"padding: row {r} has {padding[r]} of {tokens.Shape[1]} positions, expected 0 to {tokens.Shape[1] - 1}");
        }

        if (scope.Recorder is not null && padding.Any(n => n > 0))
            throw new InvalidInputException("model: gradients do not pass through a padded batch; run sequences of equal length, or one by one");
    }

    private int? StopLayer(int? asked)
    {
        if (asked is not { } l) return null;
        var stop = l < 0 ? l + Spec.NLayers : l;
        if (stop < 0 || stop > Spec.NLayers)
            throw new InvalidInputException($"stop at layer: {l} is not between {-Spec.NLayers} and n_layers {Spec.NLayers}");
        return stop;
    }

    private void CheckTokens(Tensor tokens, KeyValueCache? cache)
    {
        if (tokens.Type != DType.I32 || tokens.Shape.Rank != 2 || tokens.Device != Device)
            throw new ShapeException($"tokens: found {tokens}, expected I32 [batch, pos] on {Device.Name}");
        int batch = tokens.Shape[0], positions = tokens.Shape[1], first = cache?.Length ?? 0;
        if (batch == 0 || positions == 0) throw new InvalidInputException($"tokens: {tokens.Shape} holds none");
        if (cache is not null && cache.Batch != batch)
            throw new InvalidInputException($"tokens: {batch} sequences, the key/value cache has {cache.Batch}");
        if (first + positions > Spec.NCtx)
            throw new InvalidInputException($"tokens: {first + positions} positions exceed the context of {Spec.NCtx} (n_ctx of {Spec.Architecture}); give shorter sequences");
        if (cache is not null && first + positions > cache.Capacity)
            throw new InvalidInputException($"tokens: {first + positions} positions exceed the key/value cache's capacity of {cache.Capacity}");
        var ids = tokens.ToArray<int>();
        for (var i = 0; i < ids.Length; i++)
        {
            if ((uint)ids[i] >= (uint)Spec.DVocab)
            {
                throw new InvalidInputException($"tokens: id {ids[i]} at row {i / positions}, position {i % positions} is not in 0..{Spec.DVocab - 1} "
                    + $"(d_vocab of {Spec.Architecture}); was another model's tokenizer used?");
            }
        }
    }
}
