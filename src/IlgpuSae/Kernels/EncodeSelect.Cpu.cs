using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class EncodeSelect
{
    private const int PieceFeatures = 16;
    private const int MixFeatures = 64;

    private static unsafe SparseFeatures Cpu(TensorScope scope, CpuDevice device, Tensor x, Tensor wEnc, Tensor bEnc, int k, Tensor? scale)
    {
        int n = x.Shape[0], d = x.Shape[1], m = wEnc.Shape[0];
        var pre = scope.New([n, m]);
        float* px = x.F32, pw = wEnc.F32, pb = bEnc.F32, pp = pre.F32, ps = scale is null ? null : scale.F32;
        device.Pool.For(n, (r, _) =>
        {
            for (var c = 0; c < m; c++)
                pp[((long)r * m) + c] = (RowMath.Dot(px + ((long)r * d), pw + ((long)c * d), d) + pb[c]) * (ps == null ? 1 : ps[c]);
        });
        var f = k == 0 ? SparseFromDense.Positive(scope, pre) : TopKSelect.Rows(scope, pre, k, relu: true);
        scope.Release(pre);
        return f;
    }

    private static unsafe Tensor Center(TensorScope scope, Tensor x, Tensor center)
    {
        var y = scope.New(x.Shape);
        if (scope.Device is not CpuDevice device)
        {
            GpuCenter((GpuDevice)scope.Device, x, center, y);
            return y;
        }

        float* px = x.F32, pc = center.F32, py = y.F32;
        var d = x.Shape[1];
        device.Pool.ForRange(x.Shape[0], 32, (from, to) =>
        {
            for (var r = from; r < to; r++) RowMath.Subtract(py + (r * d), px + (r * d), pc, d);
        });
        return y;
    }

    /// <summary>By feature: the gradient's row stays in the first-level cache while the rows in which it fired pass by.</summary>
    private static unsafe void CpuBackward(CpuDevice device, SparseFeatures g, SparseColumns columns, Tensor x, Tensor? dw, Tensor db)
    {
        int* offsets = columns.ColumnOffsets.I32, rows = columns.RowIndices.I32, entries = columns.Entries.I32;
        float* v = g.Values.F32, px = x.F32, pdw = dw is null ? null : dw.F32, pdb = db.F32;
        var d = x.Shape[1];
        device.Pool.ForRange(g.Columns, PieceFeatures, (from, to) =>
        {
            for (var c = from; c < to; c++)
            {
                int e = offsets[c], end = offsets[c + 1];
                var sum = 0f;
                for (var i = e; i < end; i++) sum += v[entries[i]];
                pdb[c] = sum;
                if (pdw == null) continue;
                var o = pdw + (c * d);
                new Span<float>(o, d).Clear();
                for (; e + 4 <= end; e += 4)
                {
                    RowMath.Axpy4(o, px + ((long)rows[e] * d), px + ((long)rows[e + 1] * d), px + ((long)rows[e + 2] * d),
                        px + ((long)rows[e + 3] * d), v[entries[e]], v[entries[e + 1]], v[entries[e + 2]], v[entries[e + 3]], d);
                }

                for (; e < end; e++) RowMath.Axpy(o, px + ((long)rows[e] * d), v[entries[e]], d);
            }
        });
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
        var y = ColumnSum.Of(scope, parts);
        scope.Release(parts);
        return y;
    }
}
