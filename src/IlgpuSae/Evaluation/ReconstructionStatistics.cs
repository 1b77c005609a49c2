namespace IlgpuSae.Evaluation;

/// <summary>
/// Running sums, in double, of how well reconstructions match activations. The definitions are those of SAELens'
/// evaluation where they are right; explained variance and MSE are pooled over all rows, as SAELens does since it
/// corrected them:
/// explained_variance = 1 - sum ||a - y||^2 / sum ||a - mean a||^2, mse = mean over rows of ||a - y||^2.
/// </summary>
internal sealed class ReconstructionStatistics
{
    private const double SmallNorm = 1e-4;
    private readonly int _width;
    private readonly double[] _sum;
    private double _squares, _errors, _normIn, _normOut, _ratio, _cosine, _bias, _legacy;
    private long _rows;
    private int _batches;

    public ReconstructionStatistics(int width)
    {
        _width = width;
        _sum = new double[width];
    }

    /// <summary>Rows seen.</summary>
    public long Rows => _rows;

    /// <summary>Adds one batch: means "of the batch" are taken over these rows.</summary>
    /// <param name="a">Activations, [rows, width].</param>
    /// <param name="y">Reconstructions, [rows, width].</param>
    public void Add(ReadOnlySpan<float> a, ReadOnlySpan<float> y)
    {
        var rows = a.Length / _width;
        if (rows == 0) return;
        var mean = new double[_width];
        for (var r = 0; r < rows; r++)
        {
            var row = a.Slice(r * _width, _width);
            for (var i = 0; i < _width; i++) mean[i] += row[i];
        }

        for (var i = 0; i < _width; i++)
        {
            _sum[i] += mean[i];
            mean[i] /= rows;
        }

        double outSquares = 0, products = 0;
        for (var r = 0; r < rows; r++) AddRow(a.Slice(r * _width, _width), y.Slice(r * _width, _width), mean, ref outSquares, ref products);
        _bias += outSquares / products;
        _rows += rows;
        _batches++;
    }

    /// <summary>The results so far.</summary>
    public (ReconstructionQuality Quality, Shrinkage Shrinkage) Results()
    {
        double meanSquares = 0;
        foreach (var s in _sum) meanSquares += s / _rows * (s / _rows);
        var variance = _squares / _rows - meanSquares;
        var quality = new ReconstructionQuality
        {
            ExplainedVariance = 1 - _errors / _rows / variance,
            ExplainedVarianceLegacy = _legacy / _rows,
            Mse = _errors / _rows,
            Cossim = _cosine / _rows,
        };
        var shrinkage = new Shrinkage
        {
            L2NormIn = _normIn / _rows,
            L2NormOut = _normOut / _rows,
            L2Ratio = _ratio / _rows,
            RelativeReconstructionBias = _bias / _batches,
        };
        return (quality, shrinkage);
    }

    private void AddRow(ReadOnlySpan<float> a, ReadOnlySpan<float> y, double[] mean, ref double outSquares, ref double products)
    {
        double aa = 0, yy = 0, ay = 0, error = 0, spread = 0;
        for (var i = 0; i < _width; i++)
        {
            double x = a[i], z = y[i], d = x - z, c = x - mean[i];
            aa += x * x;
            yy += z * z;
            ay += x * z;
            error += d * d;
            spread += c * c;
        }

        double normIn = Math.Sqrt(aa), normOut = Math.Sqrt(yy);
        _squares += aa;
        _errors += error;
        _normIn += normIn;
        _normOut += normOut;
        _ratio += normOut / (normIn < SmallNorm ? 1 : normIn);
        _cosine += normIn > 0 && normOut > 0 ? ay / (normIn * normOut) : 0;
        _legacy += 1 - error / spread;
        outSquares += yy;
        products += ay;
    }
}
