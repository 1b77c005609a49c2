using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>Name and shape of one parameter of an SAE.</summary>
/// <param name="Name">SAELens' name: <c>W_enc</c>, <c>b_enc</c>, <c>W_dec</c>, <c>b_dec</c>, <c>threshold</c>, ...</param>
/// <param name="Shape">Shape in memory. Linear maps are rows: <c>W_enc</c> is [d_sae, d_in].</param>
/// <param name="TransposedInFile">Whether files hold the transpose, as they do of <c>W_enc</c>: [d_in, d_sae].</param>
public sealed record ParameterSpec(string Name, Shape Shape, bool TransposedInFile = false)
{
    /// <summary>Shape in files.</summary>
    public Shape FileShape => TransposedInFile ? [Shape[1], Shape[0]] : Shape;
}
