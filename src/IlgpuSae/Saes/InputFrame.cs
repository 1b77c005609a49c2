using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// What encoding did to an input and decoding undoes: made by Sae.Encode,
/// given to Sae.Decode. Lives as long as the scope of the call.
/// </summary>
/// <param name="Shape">The input's shape: [..., d_in], or [..., heads, d_head].</param>
/// <param name="Scale">F32 [n]: factor that each row was divided by; null: none.</param>
/// <param name="Shift">F32 [n]: mean that was subtracted from each row; null: none.</param>
/// <param name="Bypass">F32 [n, d_out]: what the output gets besides what the features decode to; null: nothing.</param>
public sealed record InputFrame(Shape Shape, Tensor? Scale = null, Tensor? Shift = null, Tensor? Bypass = null);

/// <summary>One tensor as files hold it.</summary>
/// <param name="Name">Its name in the file.</param>
/// <param name="Shape">Its shape in the file.</param>
/// <param name="Values">Row-major content.</param>
public sealed record NamedValues(string Name, Shape Shape, float[] Values)
{
    /// <summary>
    /// The same in double precision, of a tensor that files keep so whatever the SAE's <c>dtype</c> (BatchTopK's threshold);
    /// null: <see cref="Values"/> is all there is.
    /// </summary>
    public double[]? Doubles { get; init; }
}
