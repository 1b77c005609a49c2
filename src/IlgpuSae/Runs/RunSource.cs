using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>The source a run's settings name, opened: a model that reads tokens, a file of activations, or the synthetic one.</summary>
internal sealed class RunSource : IDisposable
{
    private readonly RunConfig _config;
    private readonly FileActivationSource? _file;
    private readonly LanguageModel? _language;
    private readonly TokenSource? _tokens;
    private readonly ModelActivationSource? _activations;
    private readonly EndToEnd? _endToEnd;
    private readonly RunSource? _opened;
    private readonly JudgedOn _judged;
    private MixingBuffer? _buffer;

    private RunSource(RunConfig config, Device device, IReadOnlyList<RunConfig> all, Func<HubClient>? hub, CancellationToken cancellation)
    {
        var data = config.Data;
        _config = config;
        _judged = new JudgedOn();
        if (data.ModelName is { } folder)
        {
            try
            {
                _language = LanguageModel.Load(folder, device, data.LoadOptions(), hub, cancellation);
                // A wrong hook name is worth saying before the corpus is opened.
                foreach (var hook in all.SelectMany(HooksOf)) _ = _language.Model.Hooks[hook.Name];
                _tokens = _language.OpenTokens(data, data.Contexts);
                _activations = new ModelActivationSource(_language.Model, _tokens, new ModelActivationOptions
                {
                    Hooks = [.. all.SelectMany(HooksOf).Distinct()],
                    BatchSizePrompts = data.StoreBatchSizePrompts,
                    Positions = data.SeqposSlice,
                    ExcludedTokens = _language.Excluded(data.ExcludeSpecialTokens),
                });
                if (config.EndToEnd.E2eLoss is not null) _endToEnd = new EndToEnd(_language, _tokens, data, config.EndToEnd);
                if (data.EvalContexts is not null) _language.OpenTokens(data, data.EvalContexts).Dispose();
            }
            catch
            {
                Dispose();
                throw;
            }
        }
        else if (data.Activations is { } path)
        {
            _file = new FileActivationSource(path, data.Shuffle, config.RowSeed,
                all.Any(c => c.Sae.IsTranscoder) ? [FileActivationSource.Inputs, FileActivationSource.Targets] : null);
        }
        else
        {
            Synthetic = GroundTruthSource.Open(config.Synthetic);
        }
    }

    /// <summary>The same source for another run.</summary>
    private RunSource(RunSource opened, RunConfig config)
    {
        (_opened, _config, _judged) = (opened, config, opened._judged);
        (_file, _language, _tokens, _activations, Synthetic) = (opened._file, opened._language, opened._tokens, opened._activations, opened.Synthetic);
    }

    /// <summary>The synthetic source; null if another is used.</summary>
    public GroundTruthSource? Synthetic { get; }

    /// <summary>Width of the SAE's input.</summary>
    public int Width => Blocks[0].Width;

    /// <summary>Width of its output: the target's if there is one.</summary>
    public int TargetWidth => Blocks[^1].Width;

    /// <summary>How often the data began again.</summary>
    public int Wraps => _tokens?.Wraps ?? _file?.Wraps ?? 0;

    /// <summary>What the user ought to know about the data.</summary>
    public IReadOnlyList<string> Notes => _tokens?.Notes ?? [];

    /// <summary>Where the SAE comes from, in SAELens' metadata.</summary>
    public IEnumerable<KeyValuePair<string, JsonNode?>> Metadata
    {
        get
        {
            var data = _config.Data;
            if (_language is null || _tokens is null)
            {
                if (Synthetic is not null) yield return new("model_name", Synthetic is SynthSaeBench ? "SynthSAEBench" : "synthetic superposition");
                else if (data.HookName is not null) yield return new("hook_name", data.HookName);
                if (data.HookNameOut is not null) yield return new("hook_name_out", data.HookNameOut);
                yield break;
            }

            yield return new("model_name", _language.Name);
            yield return new("model_class_name", "HookedTransformer");
            if (data.ModelFromPretrainedKwargs is { } keywords) yield return new("model_from_pretrained_kwargs", keywords.DeepClone());
            yield return new("hook_name", data.HookName);
            yield return new("hook_head_index", data.HookHeadIndex);
            if (data.HookNameOut is not null)
            {
                yield return new("hook_name_out", data.HookNameOut);
                yield return new("hook_head_index_out", data.HookHeadIndexOut);
            }

            yield return new("dataset_path", Path.GetFileName(_tokens.Name));
            yield return new("context_size", _tokens.ContextSize);
            yield return new("prepend_bos", data.PrependBos);
            yield return new("seqpos_slice", System.Text.Json.JsonSerializer.SerializeToNode(data.SeqposSlice));
            yield return new("exclude_special_tokens", System.Text.Json.JsonSerializer.SerializeToNode(data.ExcludeSpecialTokens));
            yield return new("sequence_separator_token", data.SequenceSeparatorToken);
            yield return new("disable_concat_sequences", data.DisableConcatSequences);
        }
    }

    /// <summary>Opens what a run names.</summary>
    /// <param name="config">The run.</param>
    /// <param name="device">Where a model is to live.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops a transfer.</param>
    /// <exception cref="InvalidInputException">Settings contradict each other, or a file cannot be used.</exception>
    public static RunSource Open(RunConfig config, Device device, Func<HubClient>? hub = null, CancellationToken cancellation = default) => Open([config], device, hub, cancellation);

    /// <summary>Opens the one source of several runs, which differ in their hooks at most.</summary>
    /// <param name="configs">The runs, at least one.</param>
    /// <param name="device">Where a model is to live.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops a transfer.</param>
    /// <returns>The source for the first run; <see cref="For"/> gives it to the others.</returns>
    /// <exception cref="InvalidInputException">Settings contradict each other, or a file cannot be used.</exception>
    public static RunSource Open(IReadOnlyList<RunConfig> configs, Device device, Func<HubClient>? hub = null, CancellationToken cancellation = default)
    {
        foreach (var config in configs)
        {
            config.Data.Validate();
            config.Trainer.Validate();
            config.EndToEnd.Validate(config);
            CheckTarget(config);
        }

        return new RunSource(configs[0], device, configs, hub, cancellation);
    }

    /// <summary>The same source for another run; it must not be used after this one ends.</summary>
    /// <param name="config">A run among those it was opened for.</param>
    public RunSource For(RunConfig config) => new(this, config);

    /// <summary>The run's hooks or tensors among the columns of the rows.</summary>
    public IReadOnlyList<ColumnBlock> Blocks
    {
        get
        {
            var all = ((IActivationSource?)_activations ?? (IActivationSource?)_file ?? Synthetic!).Blocks;
            if (_activations is not null)
            {
                var hooks = _activations.Hooks.ToList();
                return [.. HooksOf(_config).Select(h => all[hooks.IndexOf(h)])];
            }

            return _file is null || _config.Sae.IsTranscoder ? all : [all[0]];
        }
    }

    private static IEnumerable<ActivationHook> HooksOf(RunConfig config)
    {
        yield return new(config.Data.HookName!, config.Data.HookHeadIndex);
        if (config.Data.HookNameOut is { } target) yield return new(target, config.Data.HookHeadIndexOut);
    }

    /// <summary>What a step needs besides rows: the model that end-to-end training goes through; null: nothing.</summary>
    public IStepExtension? Extension => _endToEnd;

    /// <summary>The trainer's settings with what the source decides: end to end, a batch is of whole contexts.</summary>
    public TrainerConfig Fitted(TrainerConfig trainer) =>
        _endToEnd is null ? trainer : trainer with { TrainBatchSizeSamples = _endToEnd.BatchRows(trainer.TrainBatchSizeSamples) };

    /// <summary>The rows to train on, mixed if asked.</summary>
    public IActivationSource Rows(TrainerConfig trainer)
    {
        if (_endToEnd is not null) return _endToEnd;
        if (_activations is null) return (IActivationSource?)_file ?? Synthetic!;
        var data = _config.Data;
        var positions = data.SeqposSlice.Positions(_tokens!.ContextSize).Length;
        var capacity = (long)data.NBatchesInBuffer * data.StoreBatchSizePrompts * positions;
        if (capacity > int.MaxValue) throw new InvalidInputException($"n_batches_in_buffer: a buffer of {capacity} tokens is too large; lower it");
        if (capacity < trainer.TrainBatchSizeSamples)
        {
            throw new InvalidInputException($"n_batches_in_buffer: {data.NBatchesInBuffer} x {data.StoreBatchSizePrompts} contexts of {positions} tokens "
                + $"are fewer than train_batch_size_tokens = {trainer.TrainBatchSizeSamples}; raise one of the former or lower the latter");
        }

        // Unmixed rows need no more than one batch's room.
        return _buffer = new MixingBuffer(_activations, data.Shuffle ? (int)capacity : trainer.TrainBatchSizeSamples, _config.RowSeed, data.Shuffle, data.ActivationsMixingFraction);
    }

    /// <summary>One line about what is going to be trained on.</summary>
    public string Describe(RunConfig completed)
    {
        var sae = completed.Sae;
        var what = string.Create(CultureInfo.InvariantCulture, $"training {sae.Architecture}, {sae.DSae} features, on ");
        if (_language is not null) return what + string.Create(CultureInfo.InvariantCulture, $"{_config.Data.HookName} of {_language.Name} ({Width} wide){To(" to ", _config.Data.HookNameOut)}, reading {_tokens!.Name} in contexts of {_tokens.ContextSize} tokens{(_endToEnd is null ? "" : $", end to end ({ConfigJson.Name(_config.EndToEnd.E2eLoss!.Value)})")}");
        if (_file is not null) return what + string.Create(CultureInfo.InvariantCulture, $"{_file.Rows} rows of {_file.Path} ({Width} wide){To(" to ", _config.Sae.IsTranscoder ? FileActivationSource.Targets : null)}");
        return what + string.Create(CultureInfo.InvariantCulture, $"synthetic rows ({Width} wide) made of {Synthetic!.Features} true features");
    }

    private string To(string before, string? target) =>
        target is null ? "" : string.Create(CultureInfo.InvariantCulture, $"{before}{target} ({TargetWidth} wide)");

    /// <summary>Judges the SAE: on a model's held-out or next contexts, or on rows.</summary>
    public (EvaluationResult? Result, string On) Judge(RunConfig completed, Sae sae, int rows, CancellationToken cancellation)
    {
        var data = _config.Data;
        if (data.NEvalBatches == 0) return (null, "");
        if (_language is null)
        {
            var source = (IActivationSource?)_file ?? Synthetic!;
            var count = _file is null ? rows : Math.Min(rows, _file.Rows);
            var on = string.Create(CultureInfo.InvariantCulture, $"{count} {(_file is null ? "new rows" : "rows of the file that was trained on")}");
            return (RowsEvaluator.Run(sae, new BlockView(_judged.Rows(source, count, sae.Device), Blocks), count), on);
        }

        using var heldOut = data.EvalContexts is { } contexts ? _language.OpenTokens(data, contexts)
            : data.HoldoutFraction > 0 ? _language.OpenTokens(data, null, heldOut: true) : null;
        var batches = data.NEvalBatches ?? (data.EvalContexts is null ? 10 : null);
        var evaluator = new SaeEvaluator(_language.Model, sae, data.HookName!, new EvaluationOptions
        {
            BatchSizePrompts = data.EvalBatchSizePrompts ?? data.StoreBatchSizePrompts,
            NEvalReconstructionBatches = batches,
            NEvalSparsityVarianceBatches = batches,
            ExcludedTokens = _language.Excluded(data.ExcludeSpecialTokens),
            HookHeadIndex = data.HookHeadIndex,
            HookNameOut = data.HookNameOut,
            HookHeadIndexOut = data.HookHeadIndexOut,
        });
        // Without held-out contexts there is a number of batches.
        var tokens = heldOut ?? _judged.Contexts(_tokens!, batches!.Value * (data.EvalBatchSizePrompts ?? data.StoreBatchSizePrompts));
        var result = evaluator.Run(tokens, cancellation: cancellation);
        return (result, heldOut is null ? "contexts after those trained on (text that is too short is read again)" : data.EvalContexts is not null ? $"contexts {data.EvalContexts}"
            : string.Create(CultureInfo.InvariantCulture, $"rows kept from training, {data.HoldoutFraction} of all"));
    }

    /// <summary>Judges the SAE by the true features of as many further rows; null where those are not known.</summary>
    public GroundTruthResult? JudgeFeatures(Sae sae, int rows, CancellationToken cancellation)
    {
        if (Synthetic is null) return null;
        Synthetic.Position = _judged.Start(Synthetic);
        return GroundTruthEvaluator.Run(sae, Synthetic, rows, cancellation: cancellation);
    }

    /// <summary>A transcoder needs something to give, an SAE has it already.</summary>
    private static void CheckTarget(RunConfig config)
    {
        var (data, architecture) = (config.Data, config.Sae.Architecture);
        if (!config.Sae.IsTranscoder)
        {
            if (data.HookNameOut is not null) throw new InvalidInputException($"hook_name_out: architecture {architecture} gives hook_name's own activations; leave it out, or choose a transcoder");
            return;
        }

        if (data.ModelName is null && data.Activations is null)
            throw new InvalidInputException($"architecture {architecture}: the built-in synthetic source has no targets; give model_name, hook_name and hook_name_out, or activations with a tensor targets");
        if (data.ModelName is not null && data.HookNameOut is null)
            throw new InvalidInputException($"hook_name_out: missing; architecture {architecture} is trained to give another hook's activations, such as blocks.0.hook_mlp_out");
    }

    /// <summary>Closes files and gives memory back.</summary>
    public void Dispose()
    {
        _buffer?.Dispose();
        if (_opened is not null) return;
        _judged.Dispose();
        _activations?.Dispose();
        _tokens?.Dispose();
        _language?.Dispose();
        _file?.Dispose();
    }
}
