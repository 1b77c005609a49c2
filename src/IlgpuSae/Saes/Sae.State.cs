using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <content>Folding, and the parameters as files hold them.</content>
public abstract partial class Sae
{
    /// <summary>
    /// Scales every decoder row to unit norm and the encoder to match, so features keep their meaning in units of the
    /// activations: W_dec[j] /= n_j, W_enc[j] *= n_j, biases and thresholds *= n_j, with n_j = max(|W_dec[j]|, 1e-8).
    /// Reconstructions stay the same.
    /// </summary>
    /// <exception cref="InvalidInputException">The architecture does not allow it.</exception>
    public virtual void FoldDecoderNorm()
    {
        var dec = WDec.ToArray<float>();
        var enc = WEnc.ToArray<float>();
        var units = PreActivationUnits.Select(name => (Tensor: Parameters[name], Values: Parameters[name].ToArray<float>())).ToArray();
        int dOut = Config.OutputWidth, dIn = Config.DIn;
        for (var j = 0; j < Config.DSae; j++)
        {
            var row = dec.AsSpan(j * dOut, dOut);
            var sum = 0.0;
            foreach (var v in row) sum += (double)v * v;
            var n = (float)Math.Max(Math.Sqrt(sum), 1e-8);
            foreach (ref var v in row) v /= n;
            foreach (ref var v in enc.AsSpan(j * dIn, dIn)) v *= n;
            foreach (var (_, values) in units) values[j] *= n;
        }

        WDec.CopyFrom<float>(dec);
        WEnc.CopyFrom<float>(enc);
        foreach (var (tensor, values) in units) tensor.CopyFrom<float>(values);
    }

    /// <summary>
    /// Takes the factor that activations were multiplied by in training into the weights: W_enc *= s, W_dec /= s,
    /// b_dec /= s, and <c>normalize_activations</c> becomes <c>none</c>. Then f(x) = f_before(s x) and the
    /// reconstruction of x is that of s x divided by s.
    /// </summary>
    /// <param name="factor">s, positive.</param>
    /// <exception cref="InvalidInputException">s is not a positive number.</exception>
    public virtual void FoldActivationScale(double factor)
    {
        if (!(factor > 0 && double.IsFinite(factor)))
            throw new InvalidInputException($"activation scale: {factor} is not a positive number");
        Multiply(WEnc, factor);
        Multiply(WDec, 1 / factor);
        Multiply(BDec, 1 / factor);
        Reconfigure(Config with { NormalizeActivations = NormalizeActivations.None });
    }

    /// <summary>
    /// Multiplies the output by a number: W_dec, b_dec and W_skip. With <see cref="FoldActivationScale"/> it takes the two
    /// factors of a transcoder's input and target into the weights.
    /// </summary>
    /// <param name="factor">Positive.</param>
    /// <exception cref="InvalidInputException">The factor is not a positive number.</exception>
    public virtual void ScaleOutput(double factor)
    {
        if (!(factor > 0 && double.IsFinite(factor))) throw new InvalidInputException($"output scale: {factor} is not a positive number");
        Multiply(WDec, factor);
        Multiply(BDec, factor);
        if (Parameters.TryGetValue("W_skip", out var skip)) Multiply(skip, factor);
    }

    /// <summary>Rows of a source taken apart.</summary>
    /// <param name="scope">Owns the parts.</param>
    /// <param name="rows">F32 [n, <see cref="SaeConfig.RowWidth"/>].</param>
    /// <returns>
    /// Input [n, d_in] and target [n, d_out]: of an SAE twice <paramref name="rows"/> itself, of a transcoder the first
    /// d_in columns and the d_out after them.
    /// </returns>
    /// <exception cref="ShapeException">The rows have another width.</exception>
    public (Tensor X, Tensor Target) Split(TensorScope scope, Tensor rows)
    {
        if (rows.Shape.Last != Config.RowWidth) throw WrongWidth(rows.Shape.Last);
        if (!Config.IsTranscoder) return (rows, rows);
        return (Columns.Take(scope, rows, 0, Config.DIn), Columns.Take(scope, rows, Config.DIn, Config.OutputWidth));
    }

    internal ShapeException WrongWidth(int width) => new(Config.IsTranscoder
        ? $"train: the rows are {width} wide but a transcoder of d_in = {Config.DIn} and d_out = {Config.OutputWidth} takes {Config.RowWidth}: its input and its target side by side"
        : $"train: the activations are {width} wide but the SAE has d_in = {Config.DIn}");

    /// <summary>The parameters as files hold them: W_enc is [d_in, d_sae].</summary>
    public virtual IReadOnlyList<NamedValues> ExportState() => [.. Config.Parameters.Select(p =>
    {
        var values = Parameters[p.Name].ToArray<float>();
        return new NamedValues(p.Name, p.FileShape, p.TransposedInFile ? Transposed(values, p.Shape[0], p.Shape[1]) : values);
    })];

    /// <summary>Sets the parameters from what a file holds. All must be there, and nothing else.</summary>
    /// <param name="state">Tensors in files' shapes.</param>
    /// <param name="where">File for messages.</param>
    /// <exception cref="InvalidInputException">A tensor is missing, unknown or of a wrong shape.</exception>
    public virtual void ImportState(IReadOnlyList<NamedValues> state, string where)
    {
        foreach (var s in state)
        {
            if (!Config.Parameters.Any(p => p.Name == s.Name))
            {
                throw new InvalidInputException(
                    $"{where}: tensor \"{s.Name}\" is no parameter of architecture {Config.Architecture}, whose are {string.Join(", ", Config.Parameters.Select(p => p.Name))}");
            }
        }

        foreach (var p in Config.Parameters)
        {
            var s = state.FirstOrDefault(n => n.Name == p.Name)
                ?? throw new InvalidInputException($"{where}: tensor \"{p.Name}\" of architecture {Config.Architecture} is missing");
            if (s.Shape != p.FileShape)
            {
                throw new InvalidInputException(
                    $"{where}: tensor \"{p.Name}\" is {s.Shape} but d_in = {Config.DIn}, d_sae = {Config.DSae} ask for {p.FileShape}");
            }

            Parameters[p.Name].CopyFrom<float>(p.TransposedInFile ? Transposed(s.Values, s.Shape[0], s.Shape[1]) : s.Values);
        }
    }

    /// <summary>Copies the parameters that another SAE has under the same names and shapes.</summary>
    /// <typeparam name="T">Its type.</typeparam>
    /// <param name="target">Receives the copies.</param>
    /// <returns><paramref name="target"/>.</returns>
    protected T CopyParametersTo<T>(T target) where T : Sae
    {
        foreach (var (name, tensor) in target.Parameters)
            if (Parameters.TryGetValue(name, out var own)) tensor.CopyFrom(own);
        return target;
    }

    private static void Multiply(Tensor t, double factor)
    {
        var values = t.ToArray<float>();
        foreach (ref var v in values.AsSpan()) v = (float)(v * factor);
        t.CopyFrom<float>(values);
    }

    /// <summary>The transpose of [rows, columns], in blocks that fit the first-level cache.</summary>
    internal static float[] Transposed(float[] values, int rows, int columns)
    {
        const int block = 32;
        var t = new float[values.Length];
        for (var r0 = 0; r0 < rows; r0 += block)
        {
            for (var c0 = 0; c0 < columns; c0 += block)
            {
                var (r1, c1) = (Math.Min(rows, r0 + block), Math.Min(columns, c0 + block));
                for (var c = c0; c < c1; c++)
                    for (var r = r0; r < r1; r++) t[((long)c * rows) + r] = values[((long)r * columns) + c];
            }
        }

        return t;
    }
}
