using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using static TorchSharp.torch;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>
/// Products of the shapes of SAEs (batch 4096, d_in 768) and of GPT-2-small against libtorch's addmm into a tensor that
/// is there already. The numbers of both are compared first.
/// </summary>
internal static class GemmComparison
{
    private static readonly (string Name, int M, int K, int N, bool TransposeA, bool TransposeB)[] Products =
    [
        ("encoder NT", 4096, 768, 24576, false, true),
        ("encoder NN", 4096, 768, 24576, false, false),
        ("decoder gradient TN", 24576, 4096, 768, true, false),
        ("dense decoder NN", 4096, 24576, 768, false, false),
        ("encoder x8 NT", 4096, 768, 6144, false, true),
        ("decoder x8 gradient TN", 6144, 4096, 768, true, false),
        ("gpt2 qkv NT", 1024, 768, 2304, false, true),
        ("gpt2 mlp in NT", 1024, 768, 3072, false, true),
        ("gpt2 mlp out NT", 1024, 3072, 768, false, true),
        ("gpt2 unembed NT", 1024, 768, 50257, false, true),
        ("small NN", 1024, 64, 512, false, false),
        ("small NT", 1024, 64, 512, false, true),
        ("small TN", 512, 1024, 64, true, false),
        ("one token mlp in NT", 1, 768, 3072, false, true),
        ("one token unembed NT", 1, 768, 50257, false, true),
        ("eight tokens mlp in NT", 8, 768, 3072, false, true),
    ];

    public static unsafe void Run(int threads, int rounds, string only)
    {
        using var device = new CpuDevice(threads);
        using var noGradients = no_grad();
        foreach (var (name, m, k, n, transposeA, transposeB) in Products)
        {
            if (!name.Contains(only, StringComparison.Ordinal)) continue;
            using var torchScope = NewDisposeScope();
            using var scope = new TensorScope(device);
            TorchSharp.torch.random.manual_seed(1);
            var ta = randn(transposeA ? [k, m] : [m, k]);
            var tb = randn(transposeB ? [n, k] : [k, n]);
            var tc = zeros(m, n);
            var (va, vb) = (transposeA ? ta.t() : ta, transposeB ? tb.t() : tb);
            var a = TorchMemory.Copy(scope, ta);
            var b = TorchMemory.Copy(scope, tb);
            var c = scope.New([m, n]);
            var problem = new GemmProblem
            {
                M = m,
                N = n,
                K = k,
                A = new GemmOperand(a.F32, a.Shape.Last, !transposeA),
                B = new GemmOperand(b.F32, b.Shape.Last, transposeB),
            };
            var gigaflop = 2.0 * m * k * n / 1e9;
            var repeat = (int)Math.Clamp(0.3 / gigaflop, 1, 100);
            void Torch()
            {
                for (var i = 0; i < repeat; i++) tc.addmm_(va, vb, 0, 1);
            }

            void Ours()
            {
                for (var i = 0; i < repeat; i++) PackedGemm.Multiply(device, problem, c.F32, n);
            }

            Torch();
            Ours();
            var difference = TorchMemory.Difference(c, tc);
            if (!(difference < 1e-5 * k)) throw new InvalidOperationException($"{name}: results differ by {difference}");
            Interleaved.Run($"{name} {m}x{k}x{n}{(repeat > 1 ? $" x{repeat}" : "")}", repeat > 1 ? 3 * rounds : rounds, Torch, Ours, gigaflop * repeat);
        }
    }
}
