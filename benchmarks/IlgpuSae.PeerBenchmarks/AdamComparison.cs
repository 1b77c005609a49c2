using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>One step of Adam on W_enc and W_dec [d_sae, 768] with their biases, against torch.optim.Adam.</summary>
internal static class AdamComparison
{
    public static void Run(int threads, int rounds, int dSae)
    {
        const int DIn = 768;
        using var device = new CpuDevice(threads);
        using var torchScope = NewDisposeScope();
        using var scope = new TensorScope(device);
        manual_seed(1);
        var parameters = new List<Parameter>();
        foreach (var shape in new long[][] { [dSae, DIn], [dSae], [dSae, DIn], [DIn] })
        {
            var p = new Parameter(randn(shape));
            p.grad = randn(shape) * 1e-3f;
            parameters.Add(p);
        }

        var ours = parameters.Select(p => (P: TorchMemory.Copy(scope, p), G: TorchMemory.Copy(scope, p.grad!),
            M: scope.Zeros(Shape.Create(Array.ConvertAll(p.shape, d => (int)d))), V: scope.Zeros(Shape.Create(Array.ConvertAll(p.shape, d => (int)d))))).ToArray();
        var adam = optim.Adam(parameters, lr: 3e-4, beta1: 0.9, beta2: 0.999);
        var step = 0;
        void Torch() => adam.step();

        void Ours()
        {
            step++;
            foreach (var (p, g, m, v) in ours) AdamStep.Update(device, p, g, m, v, 3e-4, 0.9, 0.999, 1e-8, step, 1f);
        }

        Interleaved.Run($"adam, {parameters.Sum(p => p.numel()) / 1e6:F1}M parameters", rounds, Torch, Ours);
        var difference = ours.Zip(parameters, (o, p) => TorchMemory.Difference(o.P, p)).Max();
        Console.WriteLine($"largest difference of a weight after {step} steps: {difference:E1}");
        if (!(difference < 1e-6)) throw new InvalidOperationException("the results differ");
    }
}
