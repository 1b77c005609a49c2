using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// A sparse autoencoder: parameters on one device, encoding into <see cref="SparseFeatures"/> and decoding from them.
/// The pipeline is the same for every architecture: flatten, <c>hook_sae_input</c>, normalise, subtract b_dec,
/// encode (<c>hook_sae_acts_pre</c>, <c>hook_sae_acts_post</c>), decode (<c>hook_sae_recons</c>), undo, error term
/// (<c>hook_sae_error</c>), <c>hook_sae_output</c>. An architecture supplies the encoder.
/// </summary>
public abstract partial class Sae : IDisposable
{
    private readonly Dictionary<string, Tensor> _parameters = new(StringComparer.Ordinal);

    /// <summary>Creates an SAE whose parameters are zero.</summary>
    /// <param name="config">Its settings, valid.</param>
    /// <param name="device">Where the parameters live.</param>
    protected Sae(SaeConfig config, Device device)
    {
        Config = config;
        Device = device;
        foreach (var p in config.Parameters)
        {
            var t = new Tensor(device, p.Shape);
            t.Clear();
            _parameters.Add(p.Name, t);
        }
    }

    /// <summary>Its settings; folding changes them.</summary>
    public SaeConfig Config { get; private set; }

    /// <summary>Where the parameters live.</summary>
    public Device Device { get; }

    /// <summary>
    /// The parameters under SAELens' names, in the shapes of <see cref="SaeConfig.Parameters"/> (<c>W_enc</c> is
    /// [d_sae, d_in]). They may be written to; they end with the SAE.
    /// </summary>
    public IReadOnlyDictionary<string, Tensor> Parameters => _parameters;

    /// <summary>Encoder rows, [d_sae, d_in].</summary>
    public virtual Tensor WEnc => Parameters["W_enc"];

    /// <summary>Decoder rows, [d_sae, d_out].</summary>
    public Tensor WDec => Parameters["W_dec"];

    /// <summary>Decoder bias, [d_out].</summary>
    public Tensor BDec => Parameters["b_dec"];

    /// <summary>
    /// Parameters [d_sae] in the units of the pre-activations: folding decoder norms multiplies them. Biases, thresholds.
    /// </summary>
    protected virtual IReadOnlyList<string> PreActivationUnits => ["b_enc"];

    /// <summary>Features of a batch.</summary>
    /// <param name="scope">Owns the result; if it records, gradients flow to x and to the parameters.</param>
    /// <param name="x">F32 [..., d_in], or [..., heads, d_head] with <c>hook_z</c>.</param>
    /// <param name="hooks">Read and replace <c>hook_sae_input</c>, <c>hook_sae_acts_pre</c>, <c>hook_sae_acts_post</c>.</param>
    /// <returns>[n, d_sae], n the number of rows of x.</returns>
    /// <exception cref="ShapeException">x does not fit d_in.</exception>
    public SparseFeatures Encode(TensorScope scope, Tensor x, SaeHooks? hooks = null) => Encode(scope, x, out _, hooks);

    /// <summary>Features of a batch, and what decoding needs to give the reconstruction x's shape and units.</summary>
    /// <param name="scope">Owns the result; if it records, gradients flow to x and to the parameters.</param>
    /// <param name="x">F32 [..., d_in], or [..., heads, d_head] with <c>hook_z</c>.</param>
    /// <param name="frame">For <see cref="Decode"/>.</param>
    /// <param name="hooks">Read and replace <c>hook_sae_input</c>, <c>hook_sae_acts_pre</c>, <c>hook_sae_acts_post</c>.</param>
    /// <returns>[n, d_sae], n the number of rows of x.</returns>
    /// <exception cref="ShapeException">x does not fit d_in.</exception>
    public SparseFeatures Encode(TensorScope scope, Tensor x, out InputFrame frame, SaeHooks? hooks = null) =>
        EncodeRows(scope, Enter(scope, x, out frame, hooks), frame, hooks);

    /// <summary>Reconstruction from features.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="features">[n, d_sae].</param>
    /// <param name="frame">From the encoding; null gives [n, d_out] and is an error where normalisation must be undone.</param>
    /// <param name="hooks">Read and replace <c>hook_sae_recons</c>.</param>
    /// <returns>F32, the shape of the encoded x (its last axes d_out for a transcoder).</returns>
    /// <exception cref="ShapeException">The features do not fit d_sae, or the frame is of another batch.</exception>
    public Tensor Decode(TensorScope scope, SparseFeatures features, InputFrame? frame = null, SaeHooks? hooks = null)
    {
        if (features.Columns != Config.DSae)
            throw new ShapeException($"decode: features are [{features.Rows}, {features.Columns}] but the SAE has d_sae = {Config.DSae}");
        if (frame is null)
        {
            if (!Config.IsTranscoder && Config.NormalizeActivations is not (NormalizeActivations.None or NormalizeActivations.ExpectedAverageOnlyIn))
                throw new InvalidInputException($"decode: normalize_activations = {ConfigJson.Name(Config.NormalizeActivations)} has to be undone; give the frame that Encode made");
            frame = new InputFrame([features.Rows, Config.DIn]);
        }

        if (frame.Shape.Count != (long)features.Rows * Config.DIn)
            throw new ShapeException($"decode: {features.Rows} rows of features, but the frame is of an input {frame.Shape}");
        var y = DecodeRows(scope, features);
        Observe(scope, hooks, SaeHooks.Recons, Leading(frame.Shape, Config.OutputWidth), ref y);
        if (frame.Bypass is { } bypass) y = Add.Sum(scope, y, bypass);
        // A transcoder's output is another hook's: there is nothing to undo.
        if (frame.Scale is not null && !Config.IsTranscoder) y = RowAffine.Apply(scope, y, frame.Scale, frame.Shift);
        return Shaped(scope, y, Config.OutputWidth == Config.DIn ? frame.Shape : Leading(frame.Shape, Config.OutputWidth));
    }

    /// <summary>Reconstruction of a batch: what the SAE puts in place of its input.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d_in], or [..., heads, d_head] with <c>hook_z</c>.</param>
    /// <param name="hooks">Read and replace what passes the observation points.</param>
    /// <param name="useErrorTerm">
    /// Adds what the SAE misses (x minus the reconstruction without hooks, without gradient), so the result is x itself
    /// unless a hook changes something.
    /// </param>
    /// <returns>F32, x's shape; of a transcoder, with d_out as the last axis.</returns>
    /// <exception cref="ShapeException">x does not fit d_in.</exception>
    /// <exception cref="InvalidInputException">The error term is asked of a transcoder.</exception>
    public virtual Tensor Forward(TensorScope scope, Tensor x, SaeHooks? hooks = null, bool useErrorTerm = false)
    {
        if (useErrorTerm && Config.IsTranscoder)
            throw new InvalidInputException($"error term: architecture {Config.Architecture} gives another hook's activations, so what it misses does not follow from its input; splice it with SaeSplice.Transcoder");
        var f = Encode(scope, x, out var frame, hooks);
        var y = Decode(scope, f, frame, hooks);
        if (useErrorTerm)
        {
            Tensor error;
            using (new NoGradient(scope)) error = Residual(scope, x, Decode(scope, Encode(scope, x, out var clean), clean));
            hooks?.Pass(SaeHooks.Error, ref error);
            y = Add.Sum(scope, y, error);
        }

        hooks?.Pass(SaeHooks.Output, ref y);
        return y;
    }

    /// <summary>Gives the parameters' memory back.</summary>
    public void Dispose()
    {
        foreach (var p in _parameters.Values) p.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>What the encoder subtracts from every row: b_dec, or null without <c>apply_b_dec_to_input</c>.</summary>
    protected internal Tensor? Center => Config.ApplyBDecToInput ? BDec : null;

    /// <summary>The architecture's encoder, fused with its selection.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">F32 [n, d_in], normalised; <see cref="Center"/> is still to be subtracted.</param>
    protected abstract SparseFeatures Select(TensorScope scope, Tensor rows);

    /// <summary>The same from dense pre-activations, which a hook may have replaced.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="pre">F32 [n, d_sae].</param>
    /// <param name="rows">F32 [n, d_in], as in <see cref="Select"/>.</param>
    protected abstract SparseFeatures SelectFrom(TensorScope scope, Tensor pre, Tensor rows);

    /// <summary>Dense pre-activations, made only when a hook asks for them.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">F32 [n, d_in], as in <see cref="Select"/>.</param>
    /// <returns>F32 [n, d_sae].</returns>
    protected virtual Tensor PreActivations(TensorScope scope, Tensor rows) =>
        Gemm.Multiply(scope, Centred(scope, rows), WEnc, Parameters["b_enc"], transposeB: true);

    /// <summary>Rows minus <see cref="Center"/>.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">F32 [n, d_in].</param>
    protected internal Tensor Centred(TensorScope scope, Tensor rows) =>
        Center is { } center ? AddRow.Forward(scope, rows, center, -1) : rows;

    /// <summary>The decoder: features to [n, d_out].</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="features">[n, d_sae].</param>
    protected virtual Tensor DecodeRows(TensorScope scope, SparseFeatures features) =>
        SparseDecode.Forward(scope, features, WDec, BDec);

    /// <summary>What goes from the input to the output past the features: with a parameter W_skip, x W_skip^T.</summary>
    /// <param name="scope">Owns the results.</param>
    /// <param name="shape">Shape of the input.</param>
    /// <param name="raw">F32 [n, d_in], as given.</param>
    /// <param name="rows">F32 [n, d_in], normalised.</param>
    /// <returns>What is left for the encoder, [n, d_in], and what is added to the decoder's result, [n, d_out] or null.</returns>
    protected virtual (Tensor Rows, Tensor? Bypass) PassBy(TensorScope scope, Shape shape, Tensor raw, Tensor rows) =>
        (rows, Parameters.TryGetValue("W_skip", out var skip) ? Gemm.Multiply(scope, raw, skip, transposeB: true) : null);

    /// <summary>Flattens and normalises an input.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32 [..., d_in] or [..., heads, d_head].</param>
    /// <param name="frame">What decoding undoes.</param>
    /// <param name="hooks">Run at <c>hook_sae_input</c>.</param>
    /// <returns>F32 [n, d_in].</returns>
    protected Tensor Enter(TensorScope scope, Tensor x, out InputFrame frame, SaeHooks? hooks = null)
    {
        var heads = Config.ReshapeActivations == ReshapeActivations.HookZ;
        var width = heads && x.Shape.Rank >= 2 ? x.Shape[^1] * x.Shape[^2] : x.Shape.Rank >= 1 ? x.Shape.Last : 0;
        if (width != Config.DIn || x.Type != DType.F32)
        {
            var hook = Config.Metadata.Get<string>("hook_name") is { } name ? $" (trained on {name})" : "";
            throw new ShapeException($"encode: x is {x.Type} {x.Shape} but the SAE takes F32 {(heads ? "[..., heads, d_head] with heads * d_head" : "[..., d_in] with d_in")} = {Config.DIn}{hook}; was another layer or hook caught?");
        }

        var rows = Shaped(scope, x, [checked((int)(x.Count / width)), width]);
        Observe(scope, hooks, SaeHooks.Input, Leading(x.Shape, width), ref rows);
        var raw = rows;
        Tensor? scale = null, shift = null;
        switch (Config.NormalizeActivations)
        {
            case NormalizeActivations.ConstantNormRescale:
                scale = Scale.By(scope, RowNorm.L2(scope, rows), (float)(1 / Math.Sqrt(width)));
                rows = RowAffine.Undo(scope, rows, scale, null, 0);
                break;
            case NormalizeActivations.LayerNorm:
                shift = RowMoments.Mean(scope, rows);
                scale = RowMoments.Deviation(scope, rows);
                rows = RowAffine.Undo(scope, rows, scale, shift, 1e-5f);
                break;
            case NormalizeActivations.ConstantScalarRescale:
                var factor = Config.InputFactor!.Value;
                rows = Scale.By(scope, rows, (float)factor);
                scale = scope.From<float>([.. Enumerable.Repeat((float)(1 / factor), rows.Shape[0])], [rows.Shape[0]]);
                break;
        }

        (rows, var bypass) = PassBy(scope, x.Shape, raw, rows);
        frame = new InputFrame(x.Shape, scale, shift, bypass);
        return rows;
    }

    /// <summary>Encodes normalised rows, through the dense points if hooks ask for them.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="rows">F32 [n, d_in].</param>
    /// <param name="frame">Of the input.</param>
    /// <param name="hooks">Run at <c>hook_sae_acts_pre</c> and <c>hook_sae_acts_post</c>.</param>
    protected SparseFeatures EncodeRows(TensorScope scope, Tensor rows, InputFrame frame, SaeHooks? hooks = null)
    {
        SparseFeatures f;
        if (hooks?.Wants(SaeHooks.ActsPre) == true)
        {
            var pre = PreActivations(scope, rows);
            Observe(scope, hooks, SaeHooks.ActsPre, Leading(frame.Shape, Config.DSae), ref pre);
            f = SelectFrom(scope, pre, rows);
        }
        else
        {
            f = Select(scope, rows);
        }

        if (hooks?.Wants(SaeHooks.ActsPost) != true) return f;
        var dense = DenseFeatures.Of(scope, f);
        return Observe(scope, hooks, SaeHooks.ActsPost, Leading(frame.Shape, Config.DSae), ref dense)
            ? SparseFromDense.Of(scope, dense)
            : f;
    }

    /// <summary>x - y.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="x">F32, any shape.</param>
    /// <param name="y">F32, the same shape.</param>
    internal static Tensor Residual(TensorScope scope, Tensor x, Tensor y) => Add.Sum(scope, x, Scale.By(scope, y, -1));

    /// <summary>Replaces the settings, after folding.</summary>
    private protected void Reconfigure(SaeConfig config) => Config = config;

    /// <summary>Shows rows [n, w] under the shape that users know; takes their replacement back as rows.</summary>
    private static bool Observe(TensorScope scope, SaeHooks? hooks, string point, Shape shape, ref Tensor rows)
    {
        if (hooks?.Wants(point) != true) return false;
        var flat = rows.Shape;
        var value = Shaped(scope, rows, shape);
        if (!hooks.Pass(point, ref value)) return false;
        rows = Shaped(scope, value, flat);
        return true;
    }

    private static Tensor Shaped(TensorScope scope, Tensor x, Shape shape) => x.Shape == shape ? x : Reshape.As(scope, x, shape);

    /// <summary>An input's shape with heads merged and another width.</summary>
    private Shape Leading(Shape input, int width)
    {
        var dims = input.Dims;
        var lead = Config.ReshapeActivations == ReshapeActivations.HookZ ? dims[..^2] : dims[..^1];
        return Shape.Create([.. lead, width]);
    }
}
