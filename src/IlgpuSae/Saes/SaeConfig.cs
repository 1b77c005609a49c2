using System.ComponentModel;
using System.Text.Json.Serialization;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// Settings of an SAE in SAELens' fields (<c>cfg.json</c>, snake_case there). Every architecture derives a record that
/// adds its own. Descriptions become help texts and tables.
/// </summary>
public abstract record SaeConfig
{
    /// <summary>Registered name of the architecture, as in files.</summary>
    [JsonIgnore]
    public abstract string Architecture { get; }

    /// <summary>Width of the activations, d_in.</summary>
    [JsonPropertyOrder(-20)]
    [Description("width of the activations; follows the hook if not given")]
    public int DIn { get; init; }

    /// <summary>Number of features, d_sae.</summary>
    [JsonPropertyOrder(-19)]
    [Description("number of features")]
    public int DSae { get; init; }

    /// <summary>
    /// Element type in files: float32, float64, float16 or bfloat16, a <c>torch.</c> prefix allowed. Computation is float32.
    /// </summary>
    [JsonPropertyOrder(-18)]
    [Description("element type of saved weights: float32, float64, float16, bfloat16")]
    public string Dtype { get; init; } = "float32";

    /// <summary>Device the SAE was made on; kept for SAELens, not used.</summary>
    [JsonPropertyOrder(-17)]
    [Browsable(false)]
    public string Device { get; init; } = "cpu";

    /// <summary>Whether b_dec is subtracted from the input before encoding.</summary>
    [JsonPropertyOrder(-16)]
    [Description("subtract b_dec from the input before encoding")]
    public bool ApplyBDecToInput { get; init; } = true;

    /// <summary>What is done to the input before encoding and undone after decoding.</summary>
    [JsonPropertyOrder(-15)]
    [Description("none, expected_average_only_in, constant_norm_rescale or layer_norm")]
    public NormalizeActivations NormalizeActivations { get; init; }

    /// <summary>How the input is flattened.</summary>
    [JsonPropertyOrder(-14)]
    [Description("none, or hook_z to merge heads")]
    public ReshapeActivations ReshapeActivations { get; init; }

    /// <summary>Where the SAE comes from: model, hook, context size, data set.</summary>
    [JsonPropertyOrder(-13)]
    [Browsable(false)]
    public SaeMetadata Metadata { get; init; } = new();

    /// <summary>Width of the output, d_out; d_in for everything but transcoders.</summary>
    [JsonIgnore]
    public virtual int OutputWidth => DIn;

    /// <summary>
    /// Whether the output is another hook's activations (transcoders) and not the input's: then training takes pairs of
    /// input and target.
    /// </summary>
    [JsonIgnore]
    public virtual bool IsTranscoder => false;

    /// <summary>Width of the rows that training takes: d_in, or d_in + d_out where input and target stand side by side.</summary>
    [JsonIgnore]
    public int RowWidth => IsTranscoder ? DIn + OutputWidth : DIn;

    /// <summary>
    /// Whether a position's features depend on the positions before it: then inputs are [contexts, positions, d_in], and rows
    /// alone are not enough.
    /// </summary>
    [JsonIgnore]
    public virtual bool ReadsContext => false;

    /// <summary>Factor of <c>constant_scalar_rescale</c>; null: the architecture does not have that mode.</summary>
    [JsonIgnore]
    public virtual double? InputFactor => null;

    /// <summary>The same settings with another width of a transcoder's output; an SAE's follows d_in.</summary>
    /// <param name="width">d_out.</param>
    public virtual SaeConfig WithOutputWidth(int width) => this;

    /// <summary>Parameters in the order of files: b_dec and biases, W_dec, W_enc and what the architecture adds.</summary>
    [JsonIgnore]
    public virtual IReadOnlyList<ParameterSpec> Parameters =>
    [
        new("b_dec", [OutputWidth]),
        new("b_enc", [DSae]),
        new("W_dec", [DSae, OutputWidth]),
        new("W_enc", [DSae, DIn], TransposedInFile: true),
    ];

    /// <summary>Element type in files.</summary>
    /// <exception cref="InvalidInputException"><see cref="Dtype"/> is not a known spelling.</exception>
    [JsonIgnore]
    public DType StorageType => (Dtype.StartsWith("torch.", StringComparison.Ordinal) ? Dtype[6..] : Dtype) switch
    {
        "float32" => DType.F32,
        "float64" => DType.F64,
        "float16" => DType.F16,
        "bfloat16" => DType.BF16,
        _ => throw new InvalidInputException($"dtype: \"{Dtype}\" is not known; known: float32, float64, float16, bfloat16"),
    };

    /// <summary>Checks every setting.</summary>
    /// <exception cref="InvalidInputException">A setting is out of range; the message names it in files' spelling.</exception>
    public virtual void Validate()
    {
        if (DIn < 1) throw new InvalidInputException($"d_in: {DIn} is not a width; it must be at least 1");
        if (DSae < 1) throw new InvalidInputException($"d_sae: {DSae} features; it must be at least 1");
        _ = StorageType;
        if (IsTranscoder) Transcoder.Check(this);
        if (NormalizeActivations == NormalizeActivations.ConstantScalarRescale && InputFactor is null)
            throw new InvalidInputException($"normalize_activations: constant_scalar_rescale is for architecture temporal, not {Architecture}; use another mode");
        var hook = Metadata.Get<string>("hook_name");
        if (ReshapeActivations == ReshapeActivations.HookZ && hook is not null && !hook.EndsWith("_z", StringComparison.Ordinal))
        {
            throw new InvalidInputException(
                $"reshape_activations: hook_z is for hooks whose name ends in _z, but hook_name is \"{hook}\"; use none");
        }
    }
}

/// <summary>Settings of an SAE in training: those of inference plus what the losses need.</summary>
public abstract partial record TrainingSaeConfig : SaeConfig
{
    /// <summary>Norm every decoder row starts with; null keeps the raw draw.</summary>
    [JsonPropertyOrder(-12)]
    [Description("norm every decoder row starts with; null keeps the raw draw")]
    public double? DecoderInitNorm { get; init; } = 0.1;

    /// <summary>What the user ought to know about these settings, one line each; most have nothing to say.</summary>
    [JsonIgnore]
    public virtual IReadOnlyList<string> Notes => [];

    /// <summary>The settings of the SAE that training yields.</summary>
    public abstract SaeConfig ToInference();

    /// <summary>Copies the fields shared by every architecture.</summary>
    /// <typeparam name="T">The inference record.</typeparam>
    /// <param name="target">Carries the architecture's own fields.</param>
    protected T Shared<T>(T target) where T : SaeConfig => target with
    {
        DIn = DIn,
        DSae = DSae,
        Dtype = Dtype,
        Device = Device,
        ApplyBDecToInput = ApplyBDecToInput,
        NormalizeActivations = NormalizeActivations,
        ReshapeActivations = ReshapeActivations,
        Metadata = Metadata,
    };

    /// <inheritdoc/>
    public override void Validate()
    {
        base.Validate();
        if (DecoderInitNorm is { } norm && !(norm > 0 && double.IsFinite(norm)))
            throw new InvalidInputException($"decoder_init_norm: {norm} is not a positive number; use null to keep the raw draw");
        ValidateOptions();
    }
}
