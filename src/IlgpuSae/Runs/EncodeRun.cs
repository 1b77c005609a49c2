using IlgpuSae.Evaluation;
using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>What <see cref="EncodeRun"/> found.</summary>
/// <param name="Rows">Rows encoded.</param>
/// <param name="L0">Mean number of active features a row.</param>
/// <param name="ExplainedVariance">1 - squared error / variance, over all rows; NaN for a transcoder, whose target is not at hand.</param>
public sealed record EncodeResult(long Rows, double L0, double ExplainedVariance);

/// <summary>
/// Encodes a tensor of a safetensors file and writes features and reconstruction to another. Features are written as
/// compressed rows: <c>features.row_offsets</c> [rows + 1], <c>features.indices</c> and <c>features.values</c> [entries],
/// indices ascending within a row; or as one dense tensor <c>features</c> [..., d_sae].
/// </summary>
/// <param name="device">Where to compute.</param>
public sealed class EncodeRun(Device device)
{
    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Rows encoded at once.</summary>
    public int BatchRows { get; init; } = 4096;

    /// <summary>Whether features are written dense.</summary>
    public bool Dense { get; init; }

    /// <summary>Told rows done and rows in all.</summary>
    public Action<long, long>? Progress { get; init; }

    /// <summary>Runs it.</summary>
    /// <param name="saeFolder">Folder of the SAE.</param>
    /// <param name="inputPath">File with the activations.</param>
    /// <param name="tensor">Their name in it.</param>
    /// <param name="outputPath">File to write.</param>
    /// <param name="cancellation">Stops between two batches; nothing is written.</param>
    /// <exception cref="InvalidInputException">A file cannot be used, or the activations do not fit the SAE.</exception>
    public EncodeResult Execute(string saeFolder, string inputPath, string tensor, string outputPath, CancellationToken cancellation = default)
    {
        using var sae = SaeReference.Parse(saeFolder).Load(device, Hub, cancellation);
        using var file = SafetensorsFile.Open(inputPath);
        var shape = file[tensor].Shape;
        var (row, leading) = Rows(sae, shape, inputPath, tensor);
        var width = (int)row.Aggregate(1L, (n, d) => n * d);
        var rows = leading.Aggregate(1L, (n, d) => n * d);
        if (rows * Math.Max(sae.Config.OutputWidth, Dense ? sae.Config.DSae : 1) > Array.MaxLength)
            throw new InvalidFileException(inputPath, $"tensor \"{tensor}\" has {rows} rows, too many for one file of results; encode it in parts");
        var result = new Results(sae, rows, Dense);
        var context = Context(sae, leading, inputPath, tensor);
        var batch = Math.Max(1, BatchRows / context) * context;
        for (long done = 0; done < rows; done += batch)
        {
            cancellation.ThrowIfCancellationRequested();
            var n = (int)Math.Min(batch, rows - done);
            using var scope = new TensorScope(device);
            var values = new float[n * width];
            file.ReadFloat32(tensor, values, done * width);
            var x = scope.From<float>(values, Shape.Create(context == 1 ? [n, .. row.Select(d => (int)d)] : [n / context, context, .. row.Select(d => (int)d)]));
            var features = sae.Encode(scope, x, out var frame);
            result.Add(values, features, sae.Decode(scope, features, frame).ToArray<float>());
            Progress?.Invoke(done + n, rows);
        }

        result.Save(outputPath, shape, leading);
        return result.Summary();
    }

    /// <summary>Rows that must be encoded together: the positions of a context for an SAE that reads contexts, else 1.</summary>
    private static int Context(Sae sae, long[] leading, string path, string tensor)
    {
        if (!sae.Config.ReadsContext) return 1;
        if (leading.Length == 0 || leading[^1] is < 1 or > int.MaxValue)
            throw new InvalidFileException(path, $"tensor \"{tensor}\" has no positions; architecture {sae.Config.Architecture} takes [contexts, positions, d_in]");
        return (int)leading[^1];
    }

    /// <summary>The axes of one row (two where the SAE merges heads), and those before them.</summary>
    private static (long[] Row, long[] Leading) Rows(Sae sae, IReadOnlyList<long> shape, string path, string tensor)
    {
        var axes = sae.Config.ReshapeActivations == ReshapeActivations.HookZ && shape.Count > 1 && shape[^1] != sae.Config.DIn ? 2 : 1;
        if (shape.Count < axes || shape.Skip(shape.Count - axes).Aggregate(1L, (n, d) => n * d) != sae.Config.DIn)
        {
            throw new InvalidFileException(path, $"tensor \"{tensor}\" is [{string.Join(", ", shape)}], but the SAE takes [..., {sae.Config.DIn}]"
                + (sae.Config.Metadata.Get<string>("hook_name") is { } hook ? $" (it was trained on {hook})" : ""));
        }

        // An SAE that merges heads is given one head as wide as the row where the file holds them merged already.
        long[] row = sae.Config.ReshapeActivations == ReshapeActivations.HookZ && axes == 1 ? [1, shape[^1]] : [.. shape.Skip(shape.Count - axes)];
        return (row, [.. shape.Take(shape.Count - axes)]);
    }

    /// <summary>What has been computed so far.</summary>
    private sealed class Results(Sae sae, long rows, bool dense)
    {
        private readonly float[] _reconstruction = new float[rows * sae.Config.OutputWidth];
        private readonly float[]? _dense = dense ? new float[rows * sae.Config.DSae] : null;
        private readonly List<int> _indices = [];
        private readonly List<float> _values = [];
        private readonly List<long> _offsets = [0];
        private readonly ReconstructionStatistics _statistics = new(sae.Config.DIn);
        private readonly FeatureStatistics _features = new(sae.Config.DSae);
        private int _done;

        public void Add(float[] x, SparseFeatures features, float[] reconstruction)
        {
            int[] offsets = features.RowOffsets.ToArray<int>(), indices = features.Indices.ToArray<int>();
            var values = features.Values.ToArray<float>();
            reconstruction.CopyTo(_reconstruction.AsSpan(_done * sae.Config.OutputWidth));
            if (!sae.Config.IsTranscoder) _statistics.Add(x, reconstruction);
            _features.Add(offsets, indices, values, new int[features.Rows]);
            for (var r = 0; r < features.Rows; r++)
            {
                if (_dense is not null)
                    for (var e = offsets[r]; e < offsets[r + 1]; e++) _dense[((long)(_done + r) * sae.Config.DSae) + indices[e]] = values[e];
                _offsets.Add(_offsets[^1] + offsets[r + 1] - offsets[r]);
            }

            if (_dense is null)
            {
                _indices.AddRange(indices);
                _values.AddRange(values);
            }

            _done += features.Rows;
        }

        public void Save(string path, IReadOnlyList<long> shape, long[] leading)
        {
            var writer = new SafetensorsWriter();
            long[] output = sae.Config.OutputWidth == sae.Config.DIn ? [.. shape] : [.. leading, sae.Config.OutputWidth];
            writer.Add("reconstruction", output, _reconstruction);
            if (_dense is not null)
            {
                writer.Add("features", [.. leading, sae.Config.DSae], _dense);
            }
            else
            {
                writer.Add("features.row_offsets", [_offsets.Count], _offsets.ToArray());
                writer.Add("features.indices", [_indices.Count], _indices.ToArray());
                writer.Add("features.values", [_values.Count], _values.ToArray());
                writer.Metadata["features.shape"] = string.Join(',', leading.Append(sae.Config.DSae));
            }

            writer.Save(path);
        }

        public EncodeResult Summary() => new(rows, rows == 0 ? 0 : _features.Results(1).L0,
            _statistics.Rows == 0 ? double.NaN : _statistics.Results().Quality.ExplainedVariance);
    }
}
