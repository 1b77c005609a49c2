using System.CommandLine;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;

namespace IlgpuSae.Cli.Verbs;

[Verb("sae convert", "Read an SAE of any known format and write it in another, with the same weights to the bit.", 62)]
internal sealed class SaeConvertVerb : Verb
{
    private readonly Option<string?> _input = Options.Text("--input", "PATH", "File or folder of the SAE.");
    private readonly Option<string?> _output = Options.Text("--output", "DIR", "Folder to write; it must not exist, or be empty.");
    private readonly Option<string> _format = Options.Text("--format", "NAME", $"Format to write: {string.Join(", ", SaeFormats.Default.Written)}.", "saelens");
    private readonly Option<string?> _from = Options.Text("--input-format", "NAME", $"Format of the input, if it cannot be told: {string.Join(", ", SaeFormats.Default.Known.Keys)}.");
    private readonly Option<string?> _as = Options.Text("--published-as", "NAME", "Repository and folder it was published under, where the path does not say it.");
    private readonly Option<double> _scale = Options.Number("--norm-scaling-factor", "Factor on activations that the release states; folded into the weights where the SAE asks for one. 0: none.", 0);
    private readonly Option<bool> _fold = Options.Switch("--fold-decoder-norm", "Scale decoder rows to norm 1 first: reconstructions stay, features come in units of activations.");

    public override IEnumerable<OptionGroup> Groups => [new("Convert", _input, _output, _format, _from, _as, _scale, _fold)];

    public override IReadOnlyList<string> Examples =>
    [
        "ilgpusae sae convert --input gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71 --output sae --format saelens",
        "ilgpusae sae convert --input output/topk --output layers.8 --format sparsify",
    ];

    public override void Run(ParseResult arguments, Session session)
    {
        string input = session.Required(_input), output = session.Required(_output);
        using var device = session.OpenDevice();
        var scale = arguments.GetValue(_scale);
        var report = new SaeConversion(device)
        {
            Hints = new SaeHints { PublishedAs = arguments.GetValue(_as), NormScalingFactor = scale == 0 ? null : scale },
            FoldDecoderNorm = arguments.GetValue(_fold),
        }.Execute(input, output, arguments.GetValue(_format)!, arguments.GetValue(_from));
        foreach (var note in report.Notes) session.Note(note);
        session.Output.WriteLine($"{report.From} -> {report.To}: {report.Config.Architecture}, {report.Config.DSae} features of {report.Config.DIn} dimensions");
        session.Output.WriteLine($"saved {output}");
        session.Result(new JsonObject { ["input"] = input, ["from"] = report.From, ["output"] = output, ["to"] = report.To, ["cfg"] = ConfigJson.ToJson(report.Config), ["notes"] = new JsonArray([.. report.Notes.Select(n => (JsonNode)n)]) });
    }
}
