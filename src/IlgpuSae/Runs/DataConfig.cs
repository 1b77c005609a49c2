using System.ComponentModel;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using IlgpuSae.Activations;
using IlgpuSae.Files;
using IlgpuSae.Models;

namespace IlgpuSae.Runs;

/// <summary>
/// Where a run takes its activations from, in SAELens' fields where it has them. One of <see cref="Activations"/>,
/// <see cref="Tokens"/> and <see cref="Text"/> is given; without any, the built-in synthetic source is used.
/// </summary>
public sealed record DataConfig
{
    /// <summary>Folder of the model, as Hugging Face lays it out.</summary>
    [Description("folder of the model: config.json and model.safetensors")]
    public string? ModelName { get; init; }

    /// <summary>
    /// Keyword arguments of TransformerLens' loading: <c>fold_ln</c>, <c>center_writing_weights</c> and its like, false
    /// unless given, and <c>dtype</c>; others are refused unless they change nothing or are off. In files alone.
    /// </summary>
    [Browsable(false)]
    public JsonObject? ModelFromPretrainedKwargs { get; init; }

    /// <summary>Where in the model activations are taken, in TransformerLens' names.</summary>
    [Description("where activations are taken, such as blocks.2.hook_resid_post")]
    public string? HookName { get; init; }

    /// <summary>Take one head only, at hooks that have heads.</summary>
    [Description("one head of a hook that has heads")]
    public int? HookHeadIndex { get; init; }

    /// <summary>What a transcoder is to give: another hook of the same pass.</summary>
    [Description("what a transcoder is to give, such as blocks.2.hook_mlp_out")]
    public string? HookNameOut { get; init; }

    /// <summary>One head of <see cref="HookNameOut"/>.</summary>
    [Description("one head of hook_name_out")]
    public int? HookHeadIndexOut { get; init; }

    /// <summary>A file or folder of text or of a data set; see <see cref="DatasetPath"/>.</summary>
    [Description("a file or folder of .txt, .jsonl (.gz, .zst), .parquet or .arrow; several as PATH:WEIGHT,PATH:WEIGHT")]
    public string? Text { get; init; }

    /// <summary>
    /// The same in SAELens' word: a file or folder of .txt, .jsonl, .parquet or .arrow, or several with their weights as
    /// <c>PATH:WEIGHT,PATH:WEIGHT</c>; a .safetensors file counts as <see cref="Tokens"/>.
    /// </summary>
    [Description("as --text; a .safetensors file as --tokens")]
    public string? DatasetPath { get; init; }

    /// <summary>The column of a data set that is read; null: found by its name.</summary>
    [Description("column of a data set; if not given the first of tokens, input_ids, text, problem and messages that it has")]
    public string? DatasetColumn { get; init; }

    /// <summary>Share of the rows of text that is kept from training, to judge the SAE on.</summary>
    [Description("share of the rows of text kept from training, to judge the SAE on")]
    public double HoldoutFraction { get; init; }

    /// <summary>Share of malformed rows that is borne before reading stops.</summary>
    [Description("share of malformed rows that is borne before reading stops")]
    public double MaxMalformedFraction { get; init; } = 0.01;

    /// <summary>A safetensors file with token ids in tensor <c>tokens</c>.</summary>
    [Description("a safetensors file of token ids, tensor tokens")]
    public string? Tokens { get; init; }

    /// <summary>A safetensors file with activations in tensor <c>acts</c>; for a transcoder <c>targets</c> besides.</summary>
    [Description("a safetensors file of activations, tensor acts [rows, d_in], for transcoders also targets [rows, d_out]: no model is run")]
    public string? Activations { get; init; }

    /// <summary>Which contexts are trained on.</summary>
    [Description("contexts to train on, as START:STOP; all if not given")]
    public PositionSlice? Contexts { get; init; }

    /// <summary>Which contexts the SAE is judged on after training.</summary>
    [Description("contexts to judge the SAE on after training, as START:STOP")]
    public PositionSlice? EvalContexts { get; init; }

    /// <summary>Tokens in a context; null: 128 for text, the rows' own length for token files.</summary>
    [Description("tokens in a context; 128 for text and the rows' length for token files if not given")]
    public int? ContextSize { get; init; }

    /// <summary>Whether every context of text begins with the beginning-of-sequence token.</summary>
    [Description("begin every context of text with BOS")]
    public bool PrependBos { get; init; } = true;

    /// <summary>What stands between two documents of one context.</summary>
    [Description("between documents of one context: bos, eos, sep, none or a token id")]
    [JsonConverter(typeof(TextOrNumberConverter))]
    public string? SequenceSeparatorToken { get; init; } = "bos";

    /// <summary>One context a document instead of documents one after another.</summary>
    [Description("one context a document; shorter documents are dropped")]
    public bool DisableConcatSequences { get; init; }

    /// <summary>Text that ends a document inside a file.</summary>
    [Description("text that ends a document inside a file")]
    public string DocumentSeparator { get; init; } = "<|endoftext|>";

    /// <summary>Which positions of a context are used.</summary>
    [Description("positions of a context that are used, as START:STOP[:STEP]")]
    public PositionSlice SeqposSlice { get; init; } = PositionSlice.All;

    /// <summary>Which tokens' activations are left out.</summary>
    [Description("leave out activations of special tokens: true, false, or ids such as 0,1,2")]
    public TokenExclusion ExcludeSpecialTokens { get; init; } = TokenExclusion.None;

    /// <summary>Contexts the model runs at once.</summary>
    [Description("contexts the model runs at once")]
    public int StoreBatchSizePrompts { get; init; } = 32;

    /// <summary>Size of the mixing buffer in model batches.</summary>
    [Description("size of the mixing buffer in model batches")]
    public int NBatchesInBuffer { get; init; } = 20;

    /// <summary>Share of the mixing buffer that is kept for the next mix; 0: each fill is served to its end.</summary>
    [Description("share of the mixing buffer kept for the next mix; 0: each fill is served to its end")]
    public double ActivationsMixingFraction { get; init; } = 0.5;

    /// <summary>Whether rows are mixed before training.</summary>
    [Description("mix rows before training; --no-shuffle keeps their order")]
    public bool Shuffle { get; init; } = true;

    /// <summary>Seed of the rows: of their order, and of synthetic rows themselves; null: the run's seed.</summary>
    [Description("seed of the rows' order and of synthetic rows; the run's seed if not given")]
    public ulong? DataSeed { get; init; }

    /// <summary>Model batches to judge on after training; null: all of <see cref="EvalContexts"/>, else 10.</summary>
    [Description("model batches to judge on after training; all of eval_contexts, else 10, if not given; 0: do not judge")]
    public int? NEvalBatches { get; init; }

    /// <summary>Contexts the model runs at once when judging; null: as in training.</summary>
    [Description("contexts the model runs at once when judging; as in training if not given")]
    public int? EvalBatchSizePrompts { get; init; }

    /// <summary>How the model is loaded, as <see cref="ModelFromPretrainedKwargs"/> says.</summary>
    /// <param name="note">Told what the model does not allow.</param>
    /// <exception cref="InvalidInputException">An argument has a value of another kind, or a dtype that is not known.</exception>
    public ModelLoadOptions LoadOptions(Action<string>? note = null)
    {
        if (ModelFromPretrainedKwargs is not { } given) return new ModelLoadOptions { Note = note };
        string[] known = ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices", "dtype"];
        string[] harmless = ["device", "n_devices", "move_to_device", "default_padding_side", "trust_remote_code", "local_files_only", "cache_dir", "token"];
        foreach (var (name, value) in given)
        {
            // Revisions, numbers of layers and the like would give another model.
            if (value is null || value.GetValueKind() == JsonValueKind.False || known.Contains(name) || harmless.Contains(name)) continue;
            throw new InvalidInputException($"model_from_pretrained_kwargs.{name}: cannot be {value.ToJsonString()}; known: {string.Join(", ", known)}");
        }

        var keywords = JsonConfig.Parse("model_from_pretrained_kwargs", Encoding.UTF8.GetBytes(given.ToJsonString()));
        return new ModelLoadOptions
        {
            Processing = WeightProcessing.Read(keywords, WeightProcessing.None),
            Storage = keywords.GetStringOrNull("dtype") is { } type ? WeightStorages.Parse(type) : WeightStorage.AsStored,
            Note = note,
        };
    }

    /// <summary>The text or data set, by whichever name it was given.</summary>
    internal string? TextPath => Text ?? (IsTokenFile(DatasetPath) ? null : DatasetPath);

    /// <summary>The token file, by whichever name it was given.</summary>
    internal string? TokensPath => Tokens ?? (IsTokenFile(DatasetPath) ? DatasetPath : null);

    /// <summary>The rows that training uses, or those that are kept from it.</summary>
    internal DatasetSplit? Split(bool heldOut) => HoldoutFraction > 0 ? new DatasetSplit(HoldoutFraction, heldOut) : null;

    private static bool IsTokenFile(string? path) => path?.EndsWith(".safetensors", StringComparison.Ordinal) == true;

    /// <summary>Checks what can be checked without opening files.</summary>
    /// <exception cref="InvalidInputException">Settings contradict each other or are out of range.</exception>
    public void Validate()
    {
        var sources = new[] { ("text", Text), ("dataset_path", DatasetPath), ("tokens", Tokens), ("activations", Activations) }.Where(s => s.Item2 is not null).Select(s => s.Item1).ToList();
        if (sources.Count > 1) throw new InvalidInputException($"{string.Join(" and ", sources)}: give only one of them");
        if (ModelName is null && (Text ?? Tokens ?? DatasetPath) is not null) throw new InvalidInputException($"{sources[0]}: a model has to read them; give model_name as well");
        if (ModelName is not null && Activations is not null) throw new InvalidInputException("model_name and activations: activations from a file need no model; give only one of them");
        if (ModelName is not null && sources.Count == 0) throw new InvalidInputException("model_name: the model has nothing to read; give text or tokens as well");
        if (ModelName is not null && HookName is null) throw new InvalidInputException("hook_name: missing; say where activations are taken, such as blocks.0.hook_resid_post");
        if (HookHeadIndexOut is not null && HookNameOut is null) throw new InvalidInputException("hook_head_index_out: there is no hook_name_out whose head it could be");
        if (ContextSize is < 1) throw new InvalidInputException($"context_size: {ContextSize} is not at least 1");
        if (HoldoutFraction is not (>= 0 and < 1)) throw new InvalidInputException($"holdout_fraction: {HoldoutFraction.ToString(CultureInfo.InvariantCulture)} is not a share from 0 up to but not including 1");
        if (HoldoutFraction > 0 && TextPath is null) throw new InvalidInputException("holdout_fraction: only the rows of text can be held out; for a token file give contexts and eval_contexts");
        if (StoreBatchSizePrompts < 1) throw new InvalidInputException($"store_batch_size_prompts: {StoreBatchSizePrompts} is not at least 1");
        if (NBatchesInBuffer < 1) throw new InvalidInputException($"n_batches_in_buffer: {NBatchesInBuffer} is not at least 1");
        if (NEvalBatches is < 0) throw new InvalidInputException($"n_eval_batches: {NEvalBatches} is negative");
        if (EvalBatchSizePrompts is < 1) throw new InvalidInputException($"eval_batch_size_prompts: {EvalBatchSizePrompts} is not at least 1");
        if (EvalContexts is not null && TokensPath is null) throw new InvalidInputException("eval_contexts: only a token file has numbered contexts; give tokens");
        if (Contexts is not null && TokensPath is null) throw new InvalidInputException("contexts: only a token file has numbered contexts; give tokens");
    }
}

/// <summary>A name or a token id: SAELens' files hold either.</summary>
internal sealed class TextOrNumberConverter : JsonConverter<string?>
{
    public override string? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.TokenType == JsonTokenType.Number ? reader.GetInt32().ToString(CultureInfo.InvariantCulture) : reader.GetString();

    public override void Write(Utf8JsonWriter writer, string? value, JsonSerializerOptions options)
    {
        if (int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var id)) writer.WriteNumberValue(id);
        else writer.WriteStringValue(value);
    }
}
