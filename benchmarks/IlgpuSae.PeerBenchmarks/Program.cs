using System.Globalization;
using IlgpuSae.PeerBenchmarks;

CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
var options = new Options(args.Skip(1).ToArray());
var threads = options.Int("threads", Environment.ProcessorCount);
var rounds = options.Int("rounds", 5);
TorchSharp.torch.set_num_threads(threads);
switch (args.FirstOrDefault())
{
    case "gemm":
        GemmComparison.Run(threads, rounds, options.Text("only", ""));
        return 0;
    case "adam":
        AdamComparison.Run(threads, rounds, options.Int("d-sae", 24576));
        return 0;
    case "topk-step" or "relu-step":
        StepComparison.Run(args[0] == "topk-step", threads, rounds, options.Int("batch", 4096), options.Int("d-sae", 24576));
        return 0;
    default:
        Console.WriteLine("""
            usage: ./run.sh VERB [--threads N] [--rounds N]
              gemm       matrix products of SAE and transformer shapes   [--only TEXT]
              adam       one Adam step on the weights of an SAE          [--d-sae N]
              topk-step  whole training steps of a TopK SAE, k = 32      [--batch N] [--d-sae N]
              relu-step  whole training steps of a ReLU SAE, L0 about 60 [--batch N] [--d-sae N]
            Each pair does the same work, interleaved in one process; ratio > 1: IlgpuSae is faster.
            """);
        return 2;
}
