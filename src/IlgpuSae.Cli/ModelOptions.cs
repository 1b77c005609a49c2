using System.CommandLine;
using IlgpuSae.Models;

namespace IlgpuSae.Cli;

/// <summary>Options of verbs that load a model: how its weights lie in memory.</summary>
internal sealed class ModelOptions
{
    private readonly Option<string> _dtype = Options.Text("--dtype", "TYPE", "Type of the model's matrices in memory: auto (as stored), float32, float16, bfloat16; computed is in float32.", "auto");
    private readonly Option<bool> _map = Options.Switch("--map-weights", "Page matrices in from the model's files as they are used (CPU).");

    public OptionGroup Group => new("Model", _dtype, _map);

    public ModelLoadOptions Read(ParseResult arguments, Session session) => new()
    {
        Storage = WeightStorages.Parse(arguments.GetValue(_dtype)!),
        MapFiles = arguments.GetValue(_map),
        Note = session.Note,
    };
}
