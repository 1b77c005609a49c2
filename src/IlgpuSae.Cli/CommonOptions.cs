using System.CommandLine;
using IlgpuSae.Tensors;

namespace IlgpuSae.Cli;

/// <summary>What every verb takes.</summary>
internal sealed class CommonOptions
{
    public Option<string> Device { get; } = new("--device")
    {
        HelpName = "NAME",
        Description = "Where to compute: cpu, cuda:0, ...",
        DefaultValueFactory = _ => "cpu",
    };

    public Option<int> Threads { get; } = new("--threads")
    {
        HelpName = "N",
        Description = "Worker threads of the CPU, 0: one a core. Never changes a result.",
        DefaultValueFactory = _ => 0,
    };

    public Option<string> Precision { get; } = PrecisionOption();

    public Option<string?> Json { get; } = new("--json") { HelpName = "FILE", Description = "Also write the result as JSON." };

    public Option<bool> Quiet { get; } = new("--quiet", "-q") { Description = "Print results and errors only: no progress, no advice." };

    public Option<bool> Verbose { get; } = new("--verbose", "-v") { Description = "Print details, and a stack trace on failure." };

    public IEnumerable<OptionGroup> Groups => [new("Common", Device, Threads, Precision, Json, Quiet, Verbose)];

    private static Option<string> PrecisionOption()
    {
        var option = new Option<string>("--matmul-precision")
        {
            HelpName = "NAME",
            Description = "Least precision of matrix products on CUDA: f32, tf32 or bf16; the CPU computes in f32.",
            DefaultValueFactory = _ => "f32",
        };
        option.AcceptOnlyFromAmong([.. Enum.GetNames<MatmulPrecision>().Select(n => n.ToLowerInvariant())]);
        return option;
    }
}
