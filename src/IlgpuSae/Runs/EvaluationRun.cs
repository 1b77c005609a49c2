using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>What <see cref="EvaluationRun"/> found.</summary>
/// <param name="Sae">The SAE's settings.</param>
/// <param name="Data">What it was judged on, metadata filled in.</param>
/// <param name="Options">How.</param>
/// <param name="Result">The quality report.</param>
public sealed record EvaluationRunReport(SaeConfig Sae, DataConfig Data, EvaluationOptions Options, EvaluationResult Result)
{
    /// <summary>The synthetic source it was judged on; null for others.</summary>
    public SyntheticConfig? Synthetic { get; init; }

    /// <summary>How well features agree with the true ones; null where those are not known.</summary>
    public GroundTruthResult? GroundTruth { get; init; }
}

/// <summary>
/// Judges an SAE of a folder on a model and a corpus, or on a file of activations. What the settings do not say is
/// taken from the SAE's metadata: hook, head, context size, BOS, excluded tokens.
/// </summary>
/// <param name="device">Where to compute.</param>
public sealed class EvaluationRun(Device device)
{
    private static readonly string[] FromMetadata =
        ["model_from_pretrained_kwargs", "hook_name", "hook_head_index", "hook_name_out", "hook_head_index_out", "context_size", "prepend_bos", "exclude_special_tokens", "sequence_separator_token", "disable_concat_sequences"];

    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Told batches done and, if known, how many there are.</summary>
    public Action<int, int?>? Progress { get; init; }

    /// <summary>Told what the user ought to know about the data.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>Runs it.</summary>
    /// <param name="saeFolder">Folder of the SAE.</param>
    /// <param name="fields">
    /// Fields of <see cref="DataConfig"/>, <see cref="EvaluationOptions"/> and <see cref="SyntheticConfig"/> in snake_case.
    /// With <c>synthetic</c>, a preset's name or null for what the SAE was trained on, the SAE is judged on held-out rows
    /// of a synthetic source.
    /// </param>
    /// <param name="cancellation">Stops between two batches.</param>
    /// <exception cref="InvalidInputException">A file cannot be used, or SAE, model and data do not fit.</exception>
    public EvaluationRunReport Execute(string saeFolder, JsonObject fields, CancellationToken cancellation = default)
    {
        using var sae = SaeReference.Parse(saeFolder).Load(device, Hub, cancellation);
        var data = (DataConfig)ConfigJson.FromJson(Only(typeof(DataConfig), fields, sae.Config.Metadata), typeof(DataConfig), "options");
        var options = (EvaluationOptions)ConfigJson.FromJson(Only(typeof(EvaluationOptions), fields, null), typeof(EvaluationOptions), "options");
        if (fields.ContainsKey("synthetic")) return OnSynthetic(sae, saeFolder, fields, data, options, cancellation);
        if (data is { ModelName: null, Activations: { } file }) return new EvaluationRunReport(sae.Config, data, options, OnRows(sae, file, options));
        if (data.ModelName is null) throw new InvalidInputException("model_name: missing; give the model the SAE belongs to, or activations");
        data.Validate();
        using var language = LanguageModel.Load(data.ModelName, device, data.LoadOptions(Note), Hub, cancellation);
        var hook = data.HookName!;
        _ = language.Model.Hooks[hook];
        if (data.HookNameOut is not null && !sae.Config.IsTranscoder)
            throw new InvalidInputException($"hook_name_out: the SAE of {saeFolder} ({sae.Config.Architecture}) gives hook_name's own activations; leave it out");
        using var tokens = language.OpenTokens(data, data.Contexts);
        if (tokens.ContextSize > language.Model.Spec.NCtx)
            throw new InvalidInputException($"context_size: {tokens.ContextSize} tokens are more than the model's context of {language.Model.Spec.NCtx} (n_ctx)");
        var told = tokens.Notes;
        foreach (var note in told) Note?.Invoke(note);
        options = options with { ExcludedTokens = language.Excluded(data.ExcludeSpecialTokens), HookHeadIndex = data.HookHeadIndex, HookNameOut = data.HookNameOut, HookHeadIndexOut = data.HookHeadIndexOut };
        var result = new SaeEvaluator(language.Model, sae, hook, options).Run(tokens, Progress, cancellation);
        foreach (var note in tokens.Notes.Except(told)) Note?.Invoke(note);
        if (tokens.Wraps > 0) Note?.Invoke($"{tokens.Name}: the corpus was read {tokens.Wraps + 1} times; ask for fewer batches to read it once");
        return new EvaluationRunReport(sae.Config, data, options, result);
    }

    private static EvaluationResult OnRows(Sae sae, string file, EvaluationOptions options)
    {
        using var source = new FileActivationSource(file, tensors: sae.Config.IsTranscoder ? [FileActivationSource.Inputs, FileActivationSource.Targets] : null);
        return RowsEvaluator.Run(sae, source, source.Rows, denseAbove: options.DenseAbove);
    }

    private static EvaluationRunReport OnSynthetic(
        Sae sae, string folder, JsonObject fields, DataConfig data, EvaluationOptions options, CancellationToken cancellation)
    {
        options.Validate();
        if ((data.ModelName ?? data.Activations ?? data.Text ?? data.DatasetPath ?? data.Tokens) is { } other)
            throw new InvalidInputException($"synthetic: the SAE cannot be judged on a synthetic source and on {other} at once; give one of them");
        var config = SyntheticOf(folder, fields);
        var source = GroundTruthSource.Open(config);
        if (source.Width != sae.Config.DIn) throw new ShapeException($"eval: the synthetic rows are {source.Width} wide but the SAE has d_in = {sae.Config.DIn}");
        source.Position = GroundTruthSource.HeldOut;
        var result = RowsEvaluator.Run(sae, source, options.EvalSamples, denseAbove: options.DenseAbove);
        source.Position = GroundTruthSource.HeldOut;
        var truth = GroundTruthEvaluator.Run(sae, source, options.EvalSamples, cancellation: cancellation);
        return new EvaluationRunReport(sae.Config, data, options, result) { Synthetic = config, GroundTruth = truth };
    }

    /// <summary>The source of a name, else the one in the SAE's folder, with the fields given.</summary>
    private static SyntheticConfig SyntheticOf(string folder, JsonObject fields)
    {
        JsonObject world;
        if (fields["synthetic"] is { } name)
        {
            world = ConfigJson.ToJson(SyntheticPreset.Find(name.ToString()));
        }
        else
        {
            var path = Path.Combine(folder, SaeLensFolder.RunnerConfigFile);
            var run = File.Exists(path) ? (JsonObject)JsonNode.Parse(JsonConfig.Read(path).Element.GetRawText())! : [];
            world = run["synthetic"] as JsonObject
                ?? throw new InvalidInputException($"synthetic: {folder} does not say that its SAE was trained on a synthetic source; name one of {string.Join(", ", SyntheticPreset.Names)}");
        }

        foreach (var (field, value) in Only(typeof(SyntheticConfig), fields, null)) world[field] = value?.DeepClone();
        return (SyntheticConfig)ConfigJson.FromJson(world, typeof(SyntheticConfig), "synthetic");
    }

    private static JsonObject Only(Type type, JsonObject fields, SaeMetadata? metadata)
    {
        var names = ConfigJson.Fields(type).ToHashSet(StringComparer.Ordinal);
        var own = new JsonObject();
        foreach (var name in FromMetadata)
            if (metadata?[name] is { } value && names.Contains(name)) own[name] = value;
        foreach (var (name, value) in fields)
            if (names.Contains(name)) own[name] = value?.DeepClone();
        return own;
    }
}
