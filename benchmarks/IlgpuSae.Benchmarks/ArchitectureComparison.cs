using System.Diagnostics;
using System.Globalization;

namespace IlgpuSae.Benchmarks;

/// <summary>
/// Steps of all architectures in turns in one process, by processor time, which a busy machine disturbs little:
/// <c>dotnet run -c Release --project benchmarks/IlgpuSae.Benchmarks -- architectures [d_sae] [rounds] [threads]</c>.
/// </summary>
internal static class ArchitectureComparison
{
    private static readonly string[] Names = ["topk", "standard", "p_anneal", "gated", "jumprelu", "batchtopk", "matryoshka_batchtopk", "abstopk"];

    public static void Run(string[] arguments)
    {
        int Argument(int i, int fallback) => arguments.Length > i ? int.Parse(arguments[i], CultureInfo.InvariantCulture) : fallback;
        var (dSae, rounds) = (Argument(0, 6144), Argument(1, 5));
        using var work = new SparseWorkload(4096, 768, dSae, 1, Argument(2, 0));
        var saes = Names.Select(n => (Name: n, Made: ArchitectureStepBenchmarks.Make(work, n), Times: new List<double>())).ToList();
        var stored = new Dictionary<string, double>();
        for (var round = -1; round < rounds; round++)
        {
            foreach (var (name, made, times) in saes)
            {
                var before = Process.GetCurrentProcess().TotalProcessorTime;
                stored[name] = ArchitectureStepBenchmarks.Step(work, made.Sae, made.Optimizer);
                if (round >= 0) times.Add((Process.GetCurrentProcess().TotalProcessorTime - before).TotalMilliseconds);
            }
        }

        var topk = saes[0].Times.Min();
        foreach (var (name, made, times) in saes)
        {
            times.Sort();
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"{name,-22} least {times[0],7:0} ms  median {times[times.Count / 2],7:0} ms  of topk {times[0] / topk:0.00}  {stored[name]:0.0} entries a row"));
            made.Optimizer.Dispose();
            made.Sae.Dispose();
        }
    }
}
