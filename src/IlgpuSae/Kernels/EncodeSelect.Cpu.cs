using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class EncodeSelect
{
    private const int MixFeatures = 64;

    private static SparseFeatures Cpu(TensorScope scope, CpuDevice device, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection) => selection.Keep switch
    {
        Keep.Positive or Keep.Above => CpuAbove(scope, device, x, wEnc, bEnc, selection),
        Keep.Largest => CpuTopK(scope, device, x, wEnc, bEnc, selection, magnitudes: false),
        _ => CpuTopK(scope, device, x, wEnc, bEnc, selection, magnitudes: true),
    };

    private static unsafe GemmProblem Problem(Tensor x, Tensor wEnc, Tensor? bEnc) => new()
    {
        M = x.Shape[0],
        N = wEnc.Shape[0],
        K = x.Shape[1],
        A = new(x.F32, x.Shape[1], alongK: true),
        B = new(wEnc.F32, x.Shape[1], alongK: true),
        Bias = bEnc is null ? null : bEnc.F32,
    };

    private static unsafe SparseFeatures CpuAbove(TensorScope scope, CpuDevice device, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection)
    {
        var n = x.Shape[0];
        using var chunks = new EntryChunks(device);
        var lists = scope.New([n, EntryList.Words], DType.I32);
        var list = (EntryList*)lists.I32;
        if (selection.Limits is null)
        {
            PackedGemm.ForEachTile(device, Problem(x, wEnc, bEnc), new ReluEpilogue(chunks, list));
        }
        else
        {
            // Whole vectors of them are read, so they are lengthened.
            var limits = Lengthened(scope, selection.Limits);
            var scale = selection.Scale is null ? null : Lengthened(scope, selection.Scale);
            PackedGemm.ForEachTile(device, Problem(x, wEnc, bEnc), new AboveEpilogue(chunks, list, limits.F32, scale is null ? null : scale.F32));
            scope.Release(limits);
            if (scale is not null) scope.Release(scale);
        }

        var offsets = scope.New([n + 1], DType.I32);
        var start = offsets.I32;
        start[0] = 0;
        for (var r = 0; r < n; r++)
        {
            if (start[r] > int.MaxValue - list[r].Count)
                throw new InvalidInputException($"encode: more than {int.MaxValue} features fire in a batch of {n} rows; lower the batch size");
            start[r + 1] = start[r] + list[r].Count;
        }

        var indices = scope.New([start[n]], DType.I32);
        var values = scope.New([start[n]]);
        var pi = indices.I32;
        var pv = values.F32;
        device.Pool.ForRange(n, 64, (from, to) =>
        {
            for (var r = from; r < to; r++) list[r].CopyTo(pi + start[r], pv + start[r]);
        });
        scope.Release(lists);
        return new SparseFeatures(wEnc.Shape[0], offsets, indices, values);
    }

    private static unsafe SparseFeatures CpuTopK(
        TensorScope scope, CpuDevice device, Tensor x, Tensor wEnc, Tensor? bEnc, Selection selection, bool magnitudes)
    {
        int n = x.Shape[0], m = wEnc.Shape[0], k = (int)selection.Count;
        var capacity = Math.Min(m, TopKSelect.Capacity(k));
        var keys = scope.New([n, capacity * 2]);
        var thresholds = scope.New([n]);
        var counts = scope.New([n], DType.I32);
        var indices = scope.New([n, k], DType.I32);
        var values = scope.New([n, k]);
        var epilogue = new TopKEpilogue
        {
            K = k,
            Capacity = capacity,
            Keys = (ulong*)keys.F32,
            Thresholds = thresholds.F32,
            Counts = counts.I32,
            Scale = selection.Scale is null ? null : selection.Scale.F32,
            Indices = indices.I32,
            Values = values.F32,
        };
        if (magnitudes) PackedGemm.ForEachTile(device, Problem(x, wEnc, bEnc), new AbsTopKEpilogue(epilogue));
        else PackedGemm.ForEachTile(device, Problem(x, wEnc, bEnc), epilogue);
        scope.Release(keys);
        scope.Release(thresholds);
        return TopKSelect.Compact(scope, device, m, k, counts, indices, values);
    }

    /// <summary>A copy with sixteen zeros behind it.</summary>
    private static unsafe Tensor Lengthened(TensorScope scope, Tensor x)
    {
        var y = scope.Zeros([checked((int)x.Count + 16)]);
        Buffer.MemoryCopy(x.F32, y.F32, x.Bytes, x.Bytes);
        return y;
    }

    /// <summary>- sum over features of db[feature] W_enc[feature]: chunks of 64 features, then the chunks, in order.</summary>
    private static unsafe Tensor CpuMix(TensorScope scope, CpuDevice device, Tensor db, Tensor wEnc)
    {
        int m = wEnc.Shape[0], d = wEnc.Shape[1];
        var parts = scope.Zeros([(m + MixFeatures - 1) / MixFeatures, d]);
        float* pdb = db.F32, pw = wEnc.F32, pp = parts.F32;
        device.Pool.ForRange(m, MixFeatures, (from, to) =>
        {
            var o = pp + (from / MixFeatures * d);
            for (var c = from; c < to; c++)
                if (pdb[c] != 0) RowMath.Axpy(o, pw + (c * d), -pdb[c], d);
        });
        var y = SumRows.Of(scope, parts, [wEnc.Shape[1]]);
        scope.Release(parts);
        return y;
    }
}
