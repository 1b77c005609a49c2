namespace IlgpuSae.Tests.Models;

/// <summary>What transformers are made of, as plain loops in double over rows.</summary>
internal static class ReferenceMath
{
    internal static double[] V(Checkpoint c, string name) => [.. c.Tensors[name].Values.Select(v => (double)v)];

    internal static double[][] Rows(Checkpoint c, string table, int[] ids)
    {
        var (shape, values) = c.Tensors[table];
        var d = (int)shape[1];
        return [.. ids.Select(i => values[(i * d)..((i + 1) * d)].Select(v => (double)v).ToArray())];
    }

    /// <summary>x W^T + b, W being NAME.weight [out, in] and b NAME.bias if there is one.</summary>
    internal static double[][] Linear(Checkpoint c, double[][] x, string name)
    {
        var y = Product(x, c, name + ".weight");
        return c.Tensors.ContainsKey(name + ".bias") ? Sum(y, [.. Enumerable.Repeat(V(c, name + ".bias"), y.Length)]) : y;
    }

    internal static double[][] Product(double[][] x, Checkpoint c, string matrix)
    {
        var (shape, w) = c.Tensors[matrix];
        int outs = (int)shape[0], ins = (int)shape[1];
        return [.. x.Select(r => Enumerable.Range(0, outs).Select(o =>
        {
            double sum = 0;
            for (var i = 0; i < ins; i++) sum += r[i] * w[(o * ins) + i];
            return sum;
        }).ToArray())];
    }

    internal static double[][] Sum(double[][] a, double[][]? b) => b is null ? a : [.. a.Zip(b, (x, y) => x.Zip(y, (u, v) => u + v).ToArray())];

    internal static double[][] Times(double[][] a, double[][] b) => [.. a.Zip(b, (x, y) => x.Zip(y, (u, v) => u * v).ToArray())];

    internal static double[][] Map(double[][] x, Func<double, double> f) => [.. x.Select(r => r.Select(f).ToArray())];

    internal static double[][] Part(double[][] x, int first, int count) => [.. x.Select(r => r[first..(first + count)])];

    internal static double Silu(double v) => v / (1 + Math.Exp(-v));

    internal static double GeluTanh(double v) => v / 2 * (1 + Math.Tanh(Math.Sqrt(2 / Math.PI) * (v + (0.044715 * v * v * v))));

    internal static double[][] Rms(double[][] x, double[] weight, double eps) => [.. x.Select(r =>
    {
        var scale = Math.Sqrt(r.Average(v => v * v) + (float)eps);
        return r.Select((v, i) => v / scale * weight[i]).ToArray();
    })];

    internal static double[][] Layer(double[][] x, Checkpoint c, string name)
    {
        double[] w = V(c, name + ".weight"), b = V(c, name + ".bias");
        return [.. x.Select(r =>
        {
            var mean = r.Average();
            var scale = Math.Sqrt(r.Average(v => (v - mean) * (v - mean)) + 1e-5f);
            return r.Select((v, i) => ((v - mean) / scale * w[i]) + b[i]).ToArray();
        })];
    }

    internal static double[][] EachHead(double[][] x, int width, Func<double[][], double[][]> f) =>
        [.. x.Select(r => f([.. r.Chunk(width)]).SelectMany(h => h).ToArray())];

    internal static double[][] GatedMlp(Checkpoint c, double[][] x, string name, Func<double, double> f) =>
        Linear(c, Times(Map(Linear(c, x, name + "gate_proj"), f), Linear(c, x, name + "up_proj")), name + "down_proj");

    /// <summary>Rotates the first dimensions of each head by angle(position, pair).</summary>
    internal static double[][] Rope(double[][] x, int width, int rotated, Func<int, int, double> angle, bool neighbours = false, double stretch = 1) => [.. x.Select((r, t) =>
    {
        var y = (double[])r.Clone();
        for (var h = 0; h < r.Length; h += width)
        {
            for (var i = 0; i < rotated / 2; i++)
            {
                int a = h + (neighbours ? 2 * i : i), b = neighbours ? a + 1 : a + (rotated / 2);
                double cos = Math.Cos(angle(t, i)) * stretch, sin = Math.Sin(angle(t, i)) * stretch;
                (y[a], y[b]) = ((r[a] * cos) - (r[b] * sin), (r[b] * cos) + (r[a] * sin));
            }
        }

        return y;
    })];

    /// <summary>Causal attention of rows [heads * width] to rows [kvHeads * width]; a window counts the query itself; ALiBi as HF has it.</summary>
    internal static double[][] Attend(double[][] q, double[][] k, double[][] v, int heads, int kvHeads, double scale, int window, double[]? slopes = null)
    {
        var width = q[0].Length / heads;
        var z = q.Select(r => new double[r.Length]).ToArray();
        for (var h = 0; h < heads; h++)
        {
            int at = h * width, kv = h / (heads / kvHeads) * width;
            for (var i = 0; i < q.Length; i++)
            {
                var from = window > 0 ? Math.Max(0, i + 1 - window) : 0;
                var scores = Enumerable.Range(from, i + 1 - from).Select(j =>
                    (Enumerable.Range(0, width).Sum(n => q[i][at + n] * k[j][kv + n]) * scale) + ((slopes?[h] ?? 0) * j)).ToArray();
                var max = scores.Max();
                var weights = scores.Select(s => Math.Exp(s - max)).ToArray();
                var total = weights.Sum();
                for (var j = from; j <= i; j++)
                    for (var n = 0; n < width; n++) z[i][at + n] += weights[j - from] / total * v[j][kv + n];
            }
        }

        return z;
    }

    /// <summary>Mean cross-entropy of the next token.</summary>
    internal static double Loss(double[][] logits, int[] tokens) => Enumerable.Range(0, tokens.Length - 1).Average(t =>
    {
        var max = logits[t].Max();
        return Math.Log(logits[t].Sum(v => Math.Exp(v - max))) + max - logits[t][tokens[t + 1]];
    });
}
