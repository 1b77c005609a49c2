using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli.Verbs;

[Verb("encode", "Write the features and the reconstruction of given activations.", 30)]
internal sealed class EncodeVerb : Verb
{
    private readonly Option<string?> _sae = Options.Text("--sae", "DIR", "Folder of the SAE, RELEASE/ID of the published ones, or a repository of the hub: org/name/folder.");
    private readonly Option<string?> _input = Options.Text("--input", "FILE", "Safetensors file with the activations [..., d_in].");
    private readonly Option<string> _tensor = Options.Text("--tensor", "NAME", "Name of the activations in the file.", "x");
    private readonly Option<string?> _output = Options.Text("--output", "FILE", "Safetensors file to write: features and reconstruction.");
    private readonly Option<bool> _dense = Options.Switch("--dense",
        "Write features as one tensor [..., d_sae]; else as features.row_offsets, features.indices and features.values.");
    private readonly Option<int> _rows = Options.Integer("--batch-size", "Rows encoded at once.", 4096, least: 1);

    public override IEnumerable<OptionGroup> Groups => [new("Encode", _sae, _input, _tensor, _output, _dense, _rows)];

    public override IReadOnlyList<string> Examples => ["ilgpusae encode --sae output/topk --input acts.safetensors --tensor acts --output features.safetensors"];

    public override void Run(ParseResult arguments, Session session)
    {
        string sae = session.Required(_sae), input = session.Required(_input), output = session.Required(_output);
        using var device = session.OpenDevice();
        var run = new EncodeRun(device)
        {
            Hub = session.Hub,
            BatchRows = arguments.GetValue(_rows),
            Dense = arguments.GetValue(_dense),
            Progress = (done, all) => session.Progress(string.Create(CultureInfo.InvariantCulture, $"row {done}/{all}")),
        };
        var result = run.Execute(sae, input, arguments.GetValue(_tensor)!, output, session.Interrupt);
        session.EndProgress();
        new Report(session.Output)
            .Section(string.Create(CultureInfo.InvariantCulture, $"encoded {result.Rows} rows"))
            .Add("L0", result.L0, "active features a row")
            .Add("explained variance", result.ExplainedVariance)
            .Write();
        session.Output.WriteLine($"saved {output}");
        session.Result(new JsonObject { ["rows"] = result.Rows, ["l0"] = result.L0, ["explained_variance"] = double.IsNaN(result.ExplainedVariance) ? null : result.ExplainedVariance, ["output"] = output });
    }
}
