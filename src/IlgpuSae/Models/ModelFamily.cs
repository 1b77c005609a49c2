using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Names the Hugging Face architectures a <see cref="ModelFamily"/> reads, by which it is found.</summary>
/// <param name="architectures">As in config.json's <c>architectures</c>: <c>GPT2LMHeadModel</c>.</param>
[AttributeUsage(AttributeTargets.Class)]
public sealed class ModelFamilyAttribute(params string[] architectures) : Attribute
{
    /// <summary>The architectures.</summary>
    public IReadOnlyList<string> Architectures { get; } = architectures;

    /// <summary>config.json's <c>model_type</c>, for files that name no architecture.</summary>
    public string? ModelType { get; init; }
}

/// <summary>
/// One family of models: reads a Hugging Face config.json into a <see cref="ModelSpec"/> and says which tensor of the
/// checkpoint is which parameter. A family is one file.
/// </summary>
public abstract class ModelFamily
{
    /// <summary>Reads the configuration.</summary>
    /// <param name="config">config.json.</param>
    /// <param name="architecture">The architecture's name, for the spec.</param>
    /// <exception cref="InvalidFileException">A key is missing, has a wrong value, or asks for what is not supported.</exception>
    public abstract ModelSpec ReadConfig(JsonConfig config, string architecture);

    /// <summary>Where each parameter of <see cref="ModelSpec.Parameters"/> lies in the checkpoint.</summary>
    /// <param name="spec">The model.</param>
    public abstract IEnumerable<WeightRule> Weights(ModelSpec spec);

    /// <summary>Beginning of tensor names that checkpoints carry or not, such as <c>transformer.</c></summary>
    public virtual string OptionalPrefix => "";

    /// <summary>All such beginnings, where checkpoints differ; the first that a tensor is found under wins.</summary>
    public virtual IReadOnlyList<string> OptionalPrefixes => [OptionalPrefix];

    /// <summary>Whether a tensor that no rule names may stand in a checkpoint: buffers that old versions stored.</summary>
    /// <param name="name">Its name, without the optional prefix.</param>
    public virtual bool Ignores(string name) => false;

    /// <summary>A matrix stored as rows [out, in], as torch.nn.Linear does.</summary>
    /// <param name="source">Tensor in the checkpoint.</param>
    /// <param name="target">Parameter.</param>
    /// <param name="rows">out.</param>
    /// <param name="columns">in.</param>
    protected static WeightRule Matrix(string source, string target, int rows, int columns) => new(source, target, [rows, columns]);

    /// <summary>A vector: a bias or the weight of a normalisation.</summary>
    /// <param name="source">Tensor in the checkpoint.</param>
    /// <param name="target">Parameter.</param>
    /// <param name="length">Its length.</param>
    protected static WeightRule Vector(string source, string target, int length) => new(source, target, [length]);

    /// <summary>
    /// Which of several spellings of one key a configuration has: transformers knows some attributes by two names
    /// (<c>n_embd</c> and <c>hidden_size</c>), and files carry either.
    /// </summary>
    /// <param name="config">The configuration.</param>
    /// <param name="names">The spellings; the first is what is reported missing if there is none.</param>
    protected static string Spelling(JsonConfig config, params ReadOnlySpan<string> names)
    {
        foreach (var name in names) if (config.Has(name)) return name;
        return names[0];
    }

    /// <summary>d_model / heads, refused where it leaves a rest.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="headsKey">Key of the number of heads.</param>
    /// <param name="widthKey">Key of d_model.</param>
    /// <exception cref="InvalidFileException">The heads do not divide d_model.</exception>
    protected static int ReadHeadWidth(JsonConfig config, string headsKey, string widthKey)
    {
        int heads = config.GetInt(headsKey), width = config.GetInt(widthKey);
        return heads >= 1 && width % heads == 0 ? width / heads : throw config.Wrong(headsKey, $"is {heads}, which does not divide {widthKey} {width}");
    }

    /// <summary>The attention window of each layer: from <c>layer_types</c> where the file has it, else by the family's rule.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="layers">Number of layers.</param>
    /// <param name="window">The window of local layers, in tokens; 0: none, all layers are global.</param>
    /// <param name="isLocal">Which layers have the window if the file does not say.</param>
    /// <returns>One number a layer, 0 for unlimited; empty if all are.</returns>
    /// <exception cref="InvalidFileException"><c>layer_types</c> has another length or unknown names.</exception>
    protected static IReadOnlyList<int> ReadWindows(JsonConfig config, int layers, int window, Func<int, bool> isLocal)
    {
        if (window == 0) return [];
        if (!config.Has("layer_types")) return [.. Enumerable.Range(0, layers).Select(l => isLocal(l) ? window : 0)];
        var types = config.GetStrings("layer_types");
        if (types.Length != layers) throw config.Wrong("layer_types", $"has {types.Length} entries for {layers} layers");
        return [.. types.Select(t => t switch
        {
            "sliding_attention" => window,
            "full_attention" => 0,
            _ => throw config.Wrong("layer_types", $"has \"{t}\", which is not known; known: full_attention, sliding_attention"),
        })];
    }

    /// <summary>Reads the name of an activation function as transformers writes it.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="key">The key.</param>
    /// <param name="absent">What an absent key means.</param>
    /// <exception cref="InvalidFileException">The function is not known.</exception>
    protected static ActivationKind ReadActivation(JsonConfig config, string key, string absent)
    {
        var name = config.GetStringOrNull(key) ?? absent;
        return name switch
        {
            "relu" => ActivationKind.Relu,
            "gelu" => ActivationKind.Gelu,
            "gelu_new" or "gelu_pytorch_tanh" => ActivationKind.GeluNew,
            "gelu_fast" => ActivationKind.GeluFast,
            "quick_gelu" => ActivationKind.GeluQuick,
            "silu" or "swish" => ActivationKind.Silu,
            _ => throw config.Wrong(key, $"is \"{name}\", which is not known; known: relu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, silu, swish"),
        };
    }
}

/// <summary>
/// One tensor of a checkpoint and the parameter it becomes. The order is: transpose if asked, then take rows if asked.
/// </summary>
/// <param name="Source">Name in the checkpoint, without the optional prefix.</param>
/// <param name="Target">Name of the parameter, as in <see cref="ModelSpec.Parameters"/>.</param>
/// <param name="SourceShape">Shape in the checkpoint.</param>
public sealed record WeightRule(string Source, string Target, Shape SourceShape)
{
    /// <summary>The checkpoint holds [in, out] (GPT-2's Conv1D).</summary>
    public bool Transposed { get; init; }

    /// <summary>Only these rows of the (transposed) tensor; null: all.</summary>
    public RowRuns? Rows { get; init; }

    /// <summary>Shape of the parameter.</summary>
    public Shape TargetShape
    {
        get
        {
            var shape = Transposed ? Shape.Create([SourceShape[1], SourceShape[0]]) : SourceShape;
            if (Rows is not { } r) return shape;
            var dims = shape.Dims.ToArray();
            dims[0] = r.Length * r.Count;
            return Shape.Create(dims);
        }
    }
}

/// <summary>
/// Rows taken from a fused matrix: <paramref name="Count"/> runs of <paramref name="Length"/> rows, the first at
/// <paramref name="Start"/>, each <paramref name="Stride"/> after the one before. GPT-2's queries are the run (0, d_model);
/// GPT-NeoX, which interleaves by head, has n_heads runs of d_head rows, 3 d_head apart.
/// </summary>
/// <param name="Start">First row of the first run.</param>
/// <param name="Length">Rows a run.</param>
/// <param name="Count">Number of runs.</param>
/// <param name="Stride">Distance between the beginnings of two runs; not used with one run.</param>
public sealed record RowRuns(int Start, int Length, int Count = 1, int Stride = 0);
