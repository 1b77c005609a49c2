using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// A model's weights under TransformerLens' property names and in its shapes and orientation, all layers side by side:
/// <c>model.W_Q</c> is <see cref="WQ"/>, [n_layers, n_heads, d_model, d_head]. Copies in F32 on the model's device, made
/// when first asked for and owned by this object. Where heads share keys and values, W_K, W_V and their biases are
/// repeated for every head, as TransformerLens' properties are. Biases that a model has not are zeros.
/// </summary>
public sealed class StackedWeights : IDisposable
{
    private readonly HookedTransformer _model;
    private readonly Dictionary<string, Tensor> _made = new(StringComparer.Ordinal);

    internal StackedWeights(HookedTransformer model) => _model = model;

    /// <summary>Token embeddings, [d_vocab, d_model], with the factor some models have on them.</summary>
    public Tensor WE => Made("W_E", [Spec.DVocab, Spec.DModel], () =>
    {
        var w = Read("embed.W_E");
        if (Spec.EmbedScale != 1) for (var i = 0; i < w.Length; i++) w[i] *= Spec.EmbedScale;
        return w;
    });

    /// <summary>Embeddings of positions, [n_ctx, d_model].</summary>
    /// <exception cref="InvalidInputException">The model has no learned positions.</exception>
    public Tensor WPos => Spec.Positions == PositionKind.Learned
        ? Made("W_pos", [Spec.NCtx, Spec.DModel], () => Read("pos_embed.W_pos"))
        : throw new InvalidInputException($"W_pos: {Spec.Architecture} has no learned positions ({Spec.Positions})");

    /// <summary>Unembedding, [d_model, d_vocab].</summary>
    public Tensor WU => Made("W_U", [Spec.DModel, Spec.DVocab], () => Transposed(Read(Spec.TiedEmbeddings ? "embed.W_E" : "unembed.W_U"), Spec.DVocab, Spec.DModel));

    /// <summary>Bias of the logits, [d_vocab].</summary>
    public Tensor BU => Made("b_U", [Spec.DVocab], () => ReadOrZeros("unembed.b_U", Spec.DVocab));

    /// <summary>Queries' matrices, [n_layers, n_heads, d_model, d_head].</summary>
    public Tensor WQ => Heads("W_Q", Spec.NHeads);

    /// <summary>Keys' matrices, [n_layers, n_heads, d_model, d_head].</summary>
    public Tensor WK => Heads("W_K", Spec.NKvHeads);

    /// <summary>Values' matrices, [n_layers, n_heads, d_model, d_head].</summary>
    public Tensor WV => Heads("W_V", Spec.NKvHeads);

    /// <summary>Output matrices, [n_layers, n_heads, d_head, d_model].</summary>
    public Tensor WO => Layers("W_O", [Spec.NHeads, Spec.DHead, Spec.DModel],
        b => Transposed(Read(b + "attn.W_O"), Spec.DModel, Spec.NHeads * Spec.DHead));

    /// <summary>Queries' biases, [n_layers, n_heads, d_head].</summary>
    public Tensor BQ => HeadBiases("b_Q", Spec.NHeads);

    /// <summary>Keys' biases, [n_layers, n_heads, d_head].</summary>
    public Tensor BK => HeadBiases("b_K", Spec.NKvHeads);

    /// <summary>Values' biases, [n_layers, n_heads, d_head].</summary>
    public Tensor BV => HeadBiases("b_V", Spec.NKvHeads);

    /// <summary>Biases of attention's result, [n_layers, d_model].</summary>
    public Tensor BO => Layers("b_O", [Spec.DModel], b => ReadOrZeros(b + "attn.b_O", Spec.DModel));

    /// <summary>The MLPs' matrices of the hidden layer, [n_layers, d_model, d_mlp].</summary>
    public Tensor WIn => Layers("W_in", [Spec.DModel, Spec.DMlp], b => Transposed(Read(b + "mlp.W_in"), Spec.DMlp, Spec.DModel));

    /// <summary>The MLPs' gates, [n_layers, d_model, d_mlp].</summary>
    /// <exception cref="InvalidInputException">The model's MLPs have no gates.</exception>
    public Tensor WGate => Spec.GatedMlp
        ? Layers("W_gate", [Spec.DModel, Spec.DMlp], b => Transposed(Read(b + "mlp.W_gate"), Spec.DMlp, Spec.DModel))
        : throw new InvalidInputException($"W_gate: the MLPs of {Spec.Architecture} have no gates");

    /// <summary>The MLPs' output matrices, [n_layers, d_mlp, d_model].</summary>
    public Tensor WOut => Layers("W_out", [Spec.DMlp, Spec.DModel], b => Transposed(Read(b + "mlp.W_out"), Spec.DModel, Spec.DMlp));

    /// <summary>Biases of the hidden layer, [n_layers, d_mlp].</summary>
    public Tensor BIn => Layers("b_in", [Spec.DMlp], b => ReadOrZeros(b + "mlp.b_in", Spec.DMlp));

    /// <summary>Biases of the MLPs' results, [n_layers, d_model].</summary>
    public Tensor BOut => Layers("b_out", [Spec.DModel], b => ReadOrZeros(b + "mlp.b_out", Spec.DModel));

    private ModelSpec Spec => _model.Spec;

    /// <summary>Gives the copies' memory back.</summary>
    public void Dispose()
    {
        foreach (var t in _made.Values) t.Dispose();
        _made.Clear();
    }

    private Tensor Made(string name, Shape shape, Func<float[]> values)
    {
        if (_made.TryGetValue(name, out var t)) return t;
        t = new Tensor(_model.Device, shape);
        _made.Add(name, t);
        t.CopyFrom<float>(values());
        return t;
    }

    private Tensor Layers(string name, Shape one, Func<string, float[]> layer) => Made(name, Shape.Create([Spec.NLayers, .. one.Dims]), () =>
    {
        var all = new float[checked(Spec.NLayers * one.Count)];
        for (var l = 0; l < Spec.NLayers; l++) layer($"blocks.{l}.").CopyTo(all, l * one.Count);
        return all;
    });

    /// <summary>Rows (head, d_head) of length d_model become [head, d_model, d_head].</summary>
    private Tensor Heads(string name, int heads) => Layers(name, [Spec.NHeads, Spec.DModel, Spec.DHead], b =>
    {
        int d = Spec.DModel, width = Spec.DHead, group = Spec.NHeads / heads;
        var w = Read($"{b}attn.{name}");
        var y = new float[Spec.NHeads * d * width];
        for (var h = 0; h < Spec.NHeads; h++)
            Transposed(w.AsSpan(h / group * width * d, width * d).ToArray(), width, d).CopyTo(y, h * d * width);
        return y;
    });

    private Tensor HeadBiases(string name, int heads) => Layers(name, [Spec.NHeads, Spec.DHead], b =>
    {
        int width = Spec.DHead, group = Spec.NHeads / heads;
        var w = ReadOrZeros($"{b}attn.{name}", heads * width);
        return [.. Enumerable.Range(0, Spec.NHeads * width).Select(i => w[(i / width / group * width) + (i % width)])];
    });

    private float[] Read(string name) => HostWeights.Read(_model.Parameters[name]);

    private float[] ReadOrZeros(string name, int length) => _model.Parameters.TryGetValue(name, out var t) ? HostWeights.Read(t) : new float[length];

    private static float[] Transposed(float[] x, int rows, int columns)
    {
        var y = new float[x.Length];
        for (var r = 0; r < rows; r++)
            for (var c = 0; c < columns; c++) y[((long)c * rows) + r] = x[((long)r * columns) + c];
        return y;
    }
}
