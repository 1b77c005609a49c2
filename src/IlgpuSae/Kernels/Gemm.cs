using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>
/// Matrix product y = op(a) op(b) + bias, where op is the identity or the transpose: [m, k] x [k, n] -> [m, n]. Linear
/// layers hold their weights as rows [out, in] and set <c>transposeB</c>. 2 m n k operations. On the CPU every
/// element is one chain of fused multiply-adds over k (see <see cref="PackedGemm"/>), so a row of the result does not
/// depend on how many other rows there are.
/// </summary>
[Kernel]
public static partial class Gemm
{
    /// <summary>y = op(a) op(b) + bias. Differentiable in a, b and bias.</summary>
    /// <param name="scope">Owns the result.</param>
    /// <param name="a">F32, BF16 or F16, [..., k]; with <paramref name="transposeA"/> [..., m], its leading axes being k.</param>
    /// <param name="b">
    /// F32, BF16 or F16, [..., n], its leading axes being k; with <paramref name="transposeB"/> [..., k], its leading
    /// axes being n. 16-bit types are widened exactly.
    /// </param>
    /// <param name="bias">F32 [n], or null.</param>
    /// <param name="transposeA">Whether a is stored as [k, m].</param>
    /// <param name="transposeB">Whether b is stored as [n, k].</param>
    /// <returns>F32 [..., n] with a's leading axes; with <paramref name="transposeA"/> [m, n].</returns>
    /// <exception cref="ShapeException">The sizes do not fit, or an element type is none of those above.</exception>
    public static Tensor Multiply(
        TensorScope scope, Tensor a, Tensor b, Tensor? bias = null, bool transposeA = false, bool transposeB = false)
    {
        var (m, k) = Sizes(a, transposeA);
        var (n, kb) = Sizes(b, !transposeB);
        if (k != kb || a.Shape.Rank == 0 || b.Shape.Rank == 0)
        {
            throw new ShapeException($"gemm: a is {a.Shape}{(transposeA ? " transposed" : "")}, b {b.Shape}{(transposeB ? " transposed" : "")}: "
                + $"their inner sizes {k} and {kb} differ");
        }

        if (bias is not null && (bias.Count != n || bias.Type != DType.F32))
            throw new ShapeException($"gemm: bias is {bias.Type} {bias.Shape}, the product has {n} columns; give F32 [{n}]");
        CheckType(a, "a");
        CheckType(b, "b");
        var y = scope.New(transposeA ? [m, n] : a.Shape.WithLast(n));
        var sizes = (m, n, k);
        if (scope.Device is CpuDevice cpu) Cpu(cpu, sizes, a, b, bias, transposeA, transposeB, y);
        else Gpu((GpuDevice)scope.Device, sizes, a, b, bias, transposeA, transposeB, y);
        if (scope.Recorder is { } recorder) Record(scope, recorder, a, b, bias, transposeA, transposeB, y);
        return y;
    }

    internal static double[] Reference(
        (int M, int N, int K) sizes, double[] a, double[] b, double[]? bias, bool transposeA, bool transposeB)
    {
        var (m, n, k) = sizes;
        var y = new double[m * n];
        for (var i = 0; i < m; i++)
            for (var j = 0; j < n; j++)
            {
                var sum = 0.0;
                for (var l = 0; l < k; l++) sum += a[transposeA ? (l * m) + i : (i * k) + l] * b[transposeB ? (j * k) + l : (l * n) + j];
                y[(i * n) + j] = sum + (bias?[j] ?? 0);
            }

        return y;
    }

    internal static IEnumerable<KernelCase> Cases()
    {
        var sizes = new (string Label, int M, int N, int K)[]
        {
            ("one element", 1, 1, 1), ("odd sizes", 5, 3, 7), ("one row", 1, 33, 20), ("one column", 19, 1, 9),
            ("inner size 0", 3, 4, 0), ("no rows", 0, 4, 3), ("beyond a tile", 15, 34, 18), ("several tiles", 61, 131, 70),
            ("several k-blocks", 17, 35, 1601),
        };
        foreach (var (label, m, n, k) in sizes)
        {
            for (var form = 0; form < 8; form++)
            {
                bool transposeA = (form & 1) != 0, transposeB = (form & 2) != 0, hasBias = (form & 4) != 0;
                var small = (long)m * n * k <= 1000;
                var a = new KernelInput(transposeA ? [k, m] : [m, k], Differentiable: small);
                var b = new KernelInput(transposeB ? [n, k] : [k, n], Differentiable: small);
                var bias = new KernelInput([n], Differentiable: small);
                yield return new KernelCase($"{label} [{m}, {k}] x [{k}, {n}], form {form}", hasBias ? [a, b, bias] : [a, b],
                    (scope, t) => [Multiply(scope, t[0], t[1], hasBias ? t[2] : null, transposeA, transposeB)],
                    x => [Reference((m, n, k), x[0], x[1], hasBias ? x[2] : null, transposeA, transposeB)])
                { OnIlgpuCpu = (long)m * n * k < 20_000 };
            }
        }

        yield return new KernelCase("leading axes", [new([2, 3, 4], Differentiable: true), new([5, 4], Differentiable: true)],
            (scope, t) => [Multiply(scope, t[0], t[1], transposeB: true)],
            x => [Reference((6, 5, 4), x[0], x[1], null, false, true)]);
    }

    /// <summary>Rows and inner size of an operand; b is read the other way round.</summary>
    private static (int Outer, int K) Sizes(Tensor x, bool transposed) =>
        transposed ? (x.Shape.Last, x.Shape.Rows) : (x.Shape.Rows, x.Shape.Last);

    private static void CheckType(Tensor x, string name)
    {
        if (x.Type is not (DType.F32 or DType.BF16 or DType.F16))
            throw new ShapeException($"gemm: {name} is {x.Type} {x.Shape}; give F32, BF16 or F16");
    }

    /// <summary>da = dy op(b)^T, db = op(a)^T dy, or their transposes; dbias = column sums of dy.</summary>
    private static void Record(
        TensorScope scope, IRecorder recorder, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y) =>
        recorder.Record(y, bias is null ? [a, b] : [a, b, bias], dy =>
        {
            Tensor? da = null, db = null;
            if (recorder.Tracks(a))
            {
                da = transposeA
                    ? Multiply(scope, b, dy, null, transposeB, true)
                    : Multiply(scope, dy, b, null, false, !transposeB);
                if (da.Shape != a.Shape) da = scope.Own(da.Reshape(a.Shape));
            }

            if (recorder.Tracks(b))
            {
                db = transposeB
                    ? Multiply(scope, dy, a, null, true, transposeA)
                    : Multiply(scope, a, dy, null, !transposeA, false);
                if (db.Shape != b.Shape) db = scope.Own(db.Reshape(b.Shape));
            }

            if (bias is null) return [da, db];
            return [da, db, recorder.Tracks(bias) ? SumRows.Of(scope, dy, bias.Shape) : null];
        });

    private static unsafe void Cpu(
        CpuDevice device, (int M, int N, int K) sizes, Tensor a, Tensor b, Tensor? bias, bool transposeA, bool transposeB, Tensor y)
    {
        var problem = new GemmProblem
        {
            M = sizes.M,
            N = sizes.N,
            K = sizes.K,
            A = new GemmOperand((void*)a.HostAddress, a.Shape.Last, !transposeA, a.Type),
            B = new GemmOperand((void*)b.HostAddress, b.Shape.Last, transposeB, b.Type),
            Bias = bias is null ? null : bias.F32,
        };
        PackedGemm.Multiply(device, problem, y.F32, sizes.N);
    }
}
