using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>
/// Where training takes its activations from: a model that reads text, a file of rows, a synthetic source. A row holds
/// one token's activations: of one hook, or of several side by side.
/// </summary>
public interface IActivationSource
{
    /// <summary>Width of the rows: d_in for an SAE, d_in + d_out for a transcoder.</summary>
    int Width { get; }

    /// <summary>What the columns are, in order; together they are <see cref="Width"/> wide.</summary>
    IReadOnlyList<ColumnBlock> Blocks => [new(string.Empty, 0, Width)];

    /// <summary>The next rows.</summary>
    /// <param name="scope">Owns the result, on the scope's device.</param>
    /// <param name="rows">How many are wanted, at least 1.</param>
    /// <returns>F32 [1..rows, <see cref="Width"/>]; null when the source has ended.</returns>
    Tensor? Next(TensorScope scope, int rows);

    /// <summary>
    /// Mean norm of the rows, which <c>expected_average_only_in</c> scales to sqrt(width). A source that knows all its
    /// rows answers without consuming any.
    /// </summary>
    /// <param name="device">Where to compute.</param>
    /// <param name="batchRows">Rows a batch.</param>
    /// <param name="columns">The columns whose norm is meant; null: all.</param>
    /// <returns>The mean; null if it has to be estimated from batches that are then consumed.</returns>
    double? MeanNorm(Device device, int batchRows, ColumnBlock? columns = null) => null;
}
