using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// Applies a <see cref="WeightProcessing"/> to parameters on the host, in double, one matrix at a time. Matrices are rows
/// [out, in], so what TransformerLens writes as W * w[:, None] runs along rows here.
/// </summary>
internal sealed class WeightProcessor
{
    private readonly Dictionary<string, Tensor> _weights;
    private readonly Device _device;
    private ModelSpec _spec;

    private WeightProcessor(ModelSpec spec, Dictionary<string, Tensor> weights, Device device)
    {
        _spec = spec;
        _weights = weights;
        _device = device;
    }

    /// <summary>Changes <paramref name="weights"/> in place (all F32) and returns what the model then is.</summary>
    internal static ModelSpec Apply(ModelSpec spec, Dictionary<string, Tensor> weights, Device device, WeightProcessing processing)
    {
        var p = new WeightProcessor(spec, weights, device);
        if (processing.FoldLayerNorm && !spec.FoldedNorms) p.FoldNorms();
        if (processing.CenterWritingWeights) p.CenterWriting();
        if (processing.CenterUnembed) p.CenterUnembed();
        if (processing.FoldValueBiases) p.FoldValueBiases();
        if (processing.RefactorFactoredAttentionMatrices) p.Refactor();
        return p._spec;
    }

    private void FoldNorms()
    {
        var s = _spec;
        Untie();
        for (var l = 0; l < s.NLayers; l++)
        {
            var b = $"blocks.{l}.";
            foreach (var letter in "QKV") Fold(b + "ln1", $"{b}attn.W_{letter}", $"{b}attn.b_{letter}");
            Fold(b + "ln2", b + "mlp.W_in", b + "mlp.b_in");
            if (s.GatedMlp) Fold(b + "ln2", b + "mlp.W_gate", b + "mlp.b_gate");
            Remove(b + "ln1");
            Remove(b + "ln2");
        }

        Fold("ln_final", "unembed.W_U", "unembed.b_U");
        Remove("ln_final");
        _spec = _spec with { FoldedNorms = true };
        if (s.Norm != NormKind.LayerNorm) return;
        // The norms' biases gave the matrices' results biases where they had none; the others of the same kind are 0.
        _spec = _spec with { QkvBias = true, MlpBias = true, UnembedBias = true };
        AddMissingBiases();
    }

    /// <summary>W row by row: bias += W b_norm, W *= w_norm; with LayerNorm, W less its mean over what it reads.</summary>
    private void Fold(string norm, string matrix, string bias)
    {
        var w = HostWeights.Read(_weights[matrix]);
        var scale = HostWeights.Read(_weights[norm + ".w"]);
        int columns = scale.Length, rows = w.Length / columns;
        var offset = _weights.TryGetValue(norm + ".b", out var b) ? HostWeights.Read(b) : null;
        var layerNorm = _spec.Norm == NormKind.LayerNorm;
        float[]? added = null;
        if (layerNorm) added = _weights.TryGetValue(bias, out var old) ? HostWeights.Read(old) : new float[rows];
        Parallel.For(0, rows, r =>
        {
            var row = w.AsSpan(r * columns, columns);
            double sum = 0, mean = 0;
            for (var i = 0; i < columns; i++)
            {
                if (offset is not null) sum += (double)row[i] * offset[i];
                var folded = row[i] * ((double)scale[i] + _spec.NormWeightOffset);
                mean += folded / columns;
                row[i] = (float)folded;
            }

            if (added is not null) added[r] = (float)(added[r] + sum);
            if (!layerNorm) return;
            for (var i = 0; i < columns; i++) row[i] = (float)((row[i]) - mean);
        });
        _weights[matrix].CopyFrom<float>(w);
        if (added is not null) Set(bias, [rows], added);
    }

    private void CenterWriting()
    {
        Untie();
        CenterRows("embed.W_E");
        if (_weights.ContainsKey("pos_embed.W_pos")) CenterRows("pos_embed.W_pos");
        for (var l = 0; l < _spec.NLayers; l++)
        {
            foreach (var name in new[] { "attn.W_O", "mlp.W_out" }) CenterColumns($"blocks.{l}.{name}");
            foreach (var name in new[] { "attn.b_O", "mlp.b_out" })
                if (_weights.ContainsKey($"blocks.{l}.{name}")) CenterRows($"blocks.{l}.{name}");
        }
    }

    private void CenterUnembed()
    {
        Untie();
        CenterColumns("unembed.W_U");
        if (_weights.ContainsKey("unembed.b_U")) CenterRows("unembed.b_U");
    }

    /// <summary>b_O += W_O b_V, each value head's bias once for every head that reads it; b_V = 0.</summary>
    private void FoldValueBiases()
    {
        if (!_spec.QkvBias) return;
        int heads = _spec.NHeads, width = _spec.DHead, group = heads / _spec.NKvHeads;
        for (var l = 0; l < _spec.NLayers; l++)
        {
            string b = $"blocks.{l}.attn.";
            float[] values = HostWeights.Read(_weights[b + "b_V"]), output = HostWeights.Read(_weights[b + "W_O"]);
            var bias = _weights.TryGetValue(b + "b_O", out var old) ? HostWeights.Read(old) : new float[_spec.DModel];
            for (var r = 0; r < bias.Length; r++)
            {
                double sum = bias[r];
                for (var i = 0; i < heads * width; i++) sum += (double)output[(r * heads * width) + i] * values[(i / width / group * width) + (i % width)];
                bias[r] = (float)sum;
            }

            Set(b + "b_O", [bias.Length], bias);
            _weights[b + "b_V"].Clear();
        }

        _spec = _spec with { AttentionOutBias = true };
    }

    /// <summary>Each head's W_Q W_K^T and W_V W_O by their singular values.</summary>
    private void Refactor()
    {
        int d = _spec.DModel, width = _spec.DHead, all = _spec.NHeads * width;
        // The value biases move first: what is left of W_V W_O has no bias between its factors.
        FoldValueBiases();
        for (var l = 0; l < _spec.NLayers; l++)
        {
            var b = $"blocks.{l}.attn.";
            float[] q = HostWeights.Read(_weights[b + "W_Q"]), k = HostWeights.Read(_weights[b + "W_K"]);
            float[] v = HostWeights.Read(_weights[b + "W_V"]), o = HostWeights.Read(_weights[b + "W_O"]);
            var qb = _weights.TryGetValue(b + "b_Q", out var tq) ? HostWeights.Read(tq) : null;
            var kb = _weights.TryGetValue(b + "b_K", out var tk) ? HostWeights.Read(tk) : null;
            Parallel.For(0, _spec.NHeads, h =>
            {
                // Columns of the factors [d + 1, d_head] are rows of ours; the bias is one more number of each.
                double[][] left = Columns(q, qb, h), right = Columns(k, kb, h);
                var s = LowRankSvd.Of(left, right);
                for (var c = 0; c < width; c++)
                {
                    var root = Math.Sqrt(s.Values[c]);
                    Store(q, qb, h, c, s.Left[c], root);
                    Store(k, kb, h, c, s.Right[c], root);
                }

                left = Columns(v, null, h);
                right = [.. Enumerable.Range(0, width).Select(c => Enumerable.Range(0, d).Select(r => (double)o[(r * all) + (h * width) + c]).ToArray())];
                s = LowRankSvd.Of(left, right);
                for (var c = 0; c < width; c++)
                {
                    Store(v, null, h, c, s.Left[c], s.Values[c]);
                    for (var r = 0; r < d; r++) o[(r * all) + (h * width) + c] = (float)s.Right[c][r];
                }
            });
            foreach (var (name, values) in new[] { ("W_Q", q), ("W_K", k), ("W_V", v), ("W_O", o), ("b_Q", qb), ("b_K", kb) })
                if (values is not null) _weights[b + name].CopyFrom<float>(values);
        }

        double[][] Columns(float[] w, float[]? bias, int head)
        {
            var columns = new double[width][];
            for (var c = 0; c < width; c++)
            {
                columns[c] = new double[d + 1];
                for (var i = 0; i < d; i++) columns[c][i] = w[(((head * width) + c) * d) + i];
                if (bias is not null) columns[c][d] = bias[(head * width) + c];
            }

            return columns;
        }

        void Store(float[] w, float[]? bias, int head, int c, double[] column, double factor)
        {
            for (var i = 0; i < d; i++) w[(((head * width) + c) * d) + i] = (float)(column[i] * factor);
            if (bias is not null) bias[(head * width) + c] = (float)(column[d] * factor);
        }
    }

    private void Untie()
    {
        if (!_spec.TiedEmbeddings) return;
        var unembed = new Tensor(_device, _weights["embed.W_E"].Shape);
        unembed.CopyFrom(_weights["embed.W_E"]);
        _weights["unembed.W_U"] = unembed;
        _spec = _spec with { TiedEmbeddings = false };
    }

    private void CenterRows(string name)
    {
        var w = HostWeights.Read(_weights[name]);
        var columns = _weights[name].Shape.Last;
        for (var start = 0; start < w.Length; start += columns)
        {
            double mean = 0;
            for (var i = 0; i < columns; i++) mean += (double)w[start + i] / columns;
            for (var i = 0; i < columns; i++) w[start + i] = (float)(w[start + i] - mean);
        }

        _weights[name].CopyFrom<float>(w);
    }

    private void CenterColumns(string name)
    {
        var w = HostWeights.Read(_weights[name]);
        var columns = _weights[name].Shape.Last;
        var mean = new double[columns];
        for (var i = 0; i < w.Length; i++) mean[i % columns] += w[i];
        var rows = w.Length / columns;
        for (var i = 0; i < w.Length; i++) w[i] = (float)(w[i] - (mean[i % columns] / rows));
        _weights[name].CopyFrom<float>(w);
    }

    private void AddMissingBiases()
    {
        foreach (var (name, shape) in _spec.Parameters())
        {
            if (_weights.ContainsKey(name)) continue;
            var zeros = new Tensor(_device, shape);
            zeros.Clear();
            _weights.Add(name, zeros);
        }
    }

    private void Set(string name, Shape shape, float[] values)
    {
        if (!_weights.TryGetValue(name, out var t)) _weights[name] = t = new Tensor(_device, shape);
        t.CopyFrom<float>(values);
    }

    private void Remove(string norm)
    {
        foreach (var name in new[] { norm + ".w", norm + ".b" })
            if (_weights.Remove(name, out var t)) t.Dispose();
    }
}
