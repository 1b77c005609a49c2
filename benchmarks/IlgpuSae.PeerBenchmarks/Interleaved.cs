using System.Diagnostics;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>Times two programs for the same work in turns, so that a loaded machine disturbs both alike.</summary>
internal static class Interleaved
{
    /// <summary>Milliseconds of a round: on the clock, and of the process's processor time.</summary>
    private readonly record struct Sample(double Wall, double Cpu);

    /// <summary>Runs both once unmeasured, then in turns, and prints a line.</summary>
    /// <param name="title">What is done.</param>
    /// <param name="rounds">Measured rounds of each.</param>
    /// <param name="torch">The peer.</param>
    /// <param name="ours">Ours.</param>
    /// <param name="gigaflop">Work of a round in 1e9 operations; 0: rates are not printed.</param>
    public static void Run(string title, int rounds, Action torch, Action ours, double gigaflop = 0)
    {
        torch();
        ours();
        var samples = new[] { new List<Sample>(), new List<Sample>() };
        for (var r = 0; r < rounds; r++)
        {
            samples[0].Add(Time(torch));
            samples[1].Add(Time(ours));
        }

        var wall = samples.Select(s => s.Select(x => x.Wall).Order().ToArray()).ToArray();
        var cpu = samples.Select(s => s.Select(x => x.Cpu).Order().ToArray()).ToArray();
        var ratios = samples[0].Zip(samples[1], (t, o) => t.Wall / o.Wall).Order().ToArray();
        var rate = gigaflop == 0 ? "" : $"  {gigaflop / wall[0][0] * 1e3,6:F1} | {gigaflop / wall[1][0] * 1e3,6:F1} GFLOP/s at best";
        Console.WriteLine(
            $"{title,-44} torch {wall[0][0],9:F2} / {Median(wall[0]),9:F2} ms   ilgpusae {wall[1][0],9:F2} / {Median(wall[1]),9:F2} ms (min / median)"
            + $"   ratio min {wall[0][0] / wall[1][0]:F2} median {Median(wall[0]) / Median(wall[1]):F2} paired {Median(ratios):F2} cpu {Median(cpu[0]) / Median(cpu[1]):F2}{rate}");
    }

    private static Sample Time(Action action)
    {
        // OpenMP's threads spin for a while after their work; let them park.
        Thread.Sleep(15);
        var cpu = Environment.CpuUsage.TotalTime;
        var start = Stopwatch.GetTimestamp();
        action();
        return new Sample(Stopwatch.GetElapsedTime(start).TotalMilliseconds, (Environment.CpuUsage.TotalTime - cpu).TotalMilliseconds);
    }

    private static double Median(double[] sorted) => sorted[sorted.Length / 2];
}
