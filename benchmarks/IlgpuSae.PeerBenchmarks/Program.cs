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
    default:
        Console.WriteLine("""
            usage: ./run.sh VERB [--threads N] [--rounds N]
              gemm  matrix products of SAE and transformer shapes   [--only TEXT]
            Each pair does the same work, interleaved in one process; ratio > 1: IlgpuSae is faster.
            """);
        return 2;
}
