using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>First weights of an SAE. Everything is drawn from Philox streams and computed on the host: the same on every device.</summary>
internal static class WeightInit
{
    /// <summary>Draws the decoder and scales its rows.</summary>
    /// <param name="decoder">F32 [d_sae, d_out].</param>
    /// <param name="config">Method and norm.</param>
    /// <param name="seed">The seed.</param>
    public static void Decoder(Tensor decoder, TrainingSaeConfig config, ulong seed)
    {
        var (rows, width) = (decoder.Shape[0], decoder.Shape[1]);
        switch (config.DecoderInitMethod)
        {
            case DecoderInitMethod.Orthogonal:
                RandomFill.Normal(decoder, seed, RandomUses.Decoder);
                decoder.CopyFrom<float>(Orthonormal(decoder.ToArray<float>(), rows, width));
                break;
            case DecoderInitMethod.Normal:
                RandomFill.Normal(decoder, seed, RandomUses.Decoder);
                break;
            default:
                Kaiming(decoder, seed, RandomUses.Decoder);
                break;
        }

        if (config.DecoderInitNorm is { } norm) ScaleRows(decoder, norm);
    }

    /// <summary>The decoder's rows, or a draw of its own; a transcoder's is of another space and scaled as the decoder's.</summary>
    /// <param name="encoder">F32 [d_sae, d_in]; d_in is d_out if it starts as the decoder.</param>
    /// <param name="decoder">F32 [d_sae, d_out], drawn.</param>
    /// <param name="config">Which.</param>
    /// <param name="seed">The seed.</param>
    public static void Encoder(Tensor encoder, Tensor decoder, TrainingSaeConfig config, ulong seed)
    {
        if (config is { InitEncoderAsDecoderTranspose: true, IsTranscoder: false })
        {
            encoder.CopyFrom(decoder);
            return;
        }

        // Fan-in is the second size of SAELens' [d_in, d_sae].
        var bound = (float)Math.Sqrt(6.0 / encoder.Shape[0]);
        RandomFill.Uniform(encoder, seed, RandomUses.Encoder, -bound, bound);
        if (config is { IsTranscoder: true, DecoderInitNorm: { } norm }) ScaleRows(encoder, norm);
    }

    /// <summary>Overwrites rows with data points minus their mean, scaled; a point that is the mean leaves its row as it was.</summary>
    /// <param name="matrix">F32 [d_sae, width], drawn.</param>
    /// <param name="points">F32 [n, width], n at least 1.</param>
    /// <param name="config">The norm.</param>
    public static void FromRows(Tensor matrix, Tensor points, TrainingSaeConfig config)
    {
        float[] values = matrix.ToArray<float>(), data = points.ToArray<float>();
        int width = matrix.Shape[1], n = points.Shape[0];
        var mean = new double[width];
        for (var i = 0; i < data.Length; i++) mean[i % width] += data[i] / (double)n;
        for (var j = 0; j < Math.Min(matrix.Shape[0], n); j++)
        {
            var sum = 0.0;
            for (var i = 0; i < width; i++) sum += Math.Pow(data[(j * width) + i] - mean[i], 2);
            if (sum == 0) continue;
            for (var i = 0; i < width; i++) values[(j * width) + i] = (float)((data[(j * width) + i] - mean[i]) * config.DecoderInitNorm!.Value / Math.Sqrt(sum));
        }

        matrix.CopyFrom<float>(values);
    }

    /// <summary>Scales every row that is not zero.</summary>
    /// <param name="matrix">F32 [rows, width].</param>
    /// <param name="norm">The norm they get.</param>
    public static void ScaleRows(Tensor matrix, double norm)
    {
        var values = matrix.ToArray<float>();
        var width = matrix.Shape[1];
        for (var at = 0; at < values.Length; at += width)
        {
            var row = values.AsSpan(at, width);
            var sum = 0.0;
            foreach (var v in row) sum += (double)v * v;
            if (sum == 0) continue;
            var factor = norm / Math.Sqrt(sum);
            foreach (ref var v in row) v = (float)(v * factor);
        }

        matrix.CopyFrom<float>(values);
    }

    private static void Kaiming(Tensor matrix, ulong seed, ulong stream)
    {
        var bound = (float)Math.Sqrt(6.0 / matrix.Shape[1]);
        RandomFill.Uniform(matrix, seed, stream, -bound, bound);
    }

    /// <summary>
    /// Gram-Schmidt, twice for accuracy, over the shorter side: orthonormal columns of a tall matrix, rows of a wide one. The
    /// factor Q of a normal matrix with R's diagonal positive, which is how PyTorch's <c>orthogonal_</c> fixes signs.
    /// O(rows width min(rows, width)).
    /// </summary>
    private static float[] Orthonormal(float[] matrix, int rows, int width)
    {
        var tall = rows >= width;
        var (count, length) = tall ? (width, rows) : (rows, width);
        var vectors = new double[count][];
        for (var k = 0; k < count; k++)
        {
            var v = vectors[k] = new double[length];
            for (var i = 0; i < length; i++) v[i] = tall ? matrix[((long)i * width) + k] : matrix[((long)k * width) + i];
            for (var pass = 0; pass < 2; pass++)
                for (var j = 0; j < k; j++) Subtract(v, vectors[j], Dot(v, vectors[j]));
            Subtract(v, v, 1 - (1 / Math.Sqrt(Dot(v, v))));
        }

        for (var k = 0; k < count; k++)
            for (var i = 0; i < length; i++) matrix[tall ? ((long)i * width) + k : ((long)k * width) + i] = (float)vectors[k][i];
        return matrix;
    }

    private static double Dot(double[] a, double[] b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++) sum += a[i] * b[i];
        return sum;
    }

    /// <summary>a -= factor b.</summary>
    private static void Subtract(double[] a, double[] b, double factor)
    {
        for (var i = 0; i < a.Length; i++) a[i] -= factor * b[i];
    }
}
