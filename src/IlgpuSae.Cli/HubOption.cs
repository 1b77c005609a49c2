using System.CommandLine;
using IlgpuSae.Hub;

namespace IlgpuSae.Cli;

/// <summary>The option that says what a repository holds.</summary>
internal static class HubOption
{
    public static Option<string> Type()
    {
        var option = new Option<string>("--type") { HelpName = "NAME", Description = "What the repository holds: model, dataset or space.", DefaultValueFactory = _ => "model" };
        option.AcceptOnlyFromAmong("model", "dataset", "space");
        return option;
    }

    public static HubRepoKind Kind(string type) => type switch { "dataset" => HubRepoKind.Dataset, "space" => HubRepoKind.Space, _ => HubRepoKind.Model };
}
