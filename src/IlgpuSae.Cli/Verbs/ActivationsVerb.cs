using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;
using IlgpuSae.Saes;

namespace IlgpuSae.Cli.Verbs;

[Verb("activations", "Run a model and write its activations at chosen hooks.", 20)]
internal sealed class ActivationsVerb : Verb
{
    private static readonly string[] Used =
    [
        nameof(DataConfig.Text), nameof(DataConfig.DatasetPath), nameof(DataConfig.DatasetColumn), nameof(DataConfig.MaxMalformedFraction), nameof(DataConfig.Tokens), nameof(DataConfig.Contexts), nameof(DataConfig.ContextSize), nameof(DataConfig.PrependBos),
        nameof(DataConfig.SequenceSeparatorToken), nameof(DataConfig.DisableConcatSequences), nameof(DataConfig.DocumentSeparator),
        nameof(DataConfig.StoreBatchSizePrompts),
    ];

    private readonly Option<string?> _model = Options.Text("--model", "DIR", "Folder of the model, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<string?> _hooks = Options.Text("--hooks", "NAMES", "Hooks with commas between them, * for anything, or all.");
    private readonly Option<string?> _output = Options.Text("--output", "FILE", "Safetensors file to write: tensors under the hooks' names, logits and tokens.");
    private readonly Option<bool> _noLogits = Options.Switch("--no-logits", "Stop the model at the last hook and write no logits.");
    private readonly ModelOptions _load = new();
    private readonly OptionTable _table = new();

    public ActivationsVerb() => _table.Add("Data", typeof(DataConfig), p => Used.Contains(p.Name));

    public override IEnumerable<OptionGroup> Groups => [new("Activations", _model, _hooks, _output, _noLogits), _load.Group, .. _table.Groups];

    public override IReadOnlyList<string> Examples =>
        ["ilgpusae activations --model gpt2 --tokens tokens.safetensors --hooks blocks.8.hook_resid_pre --output acts.safetensors"];

    public override void Run(ParseResult arguments, Session session)
    {
        string model = session.Required(_model), hooks = session.Required(_hooks), output = session.Required(_output);
        var fields = _table.Given(arguments);
        fields["model_name"] = model;
        var data = (DataConfig)ConfigJson.FromJson(fields, typeof(DataConfig), "options");
        using var device = session.OpenDevice();
        var run = new ActivationsRun(device)
        {
            Hub = session.Hub,
            Load = _load.Read(arguments, session),
            Logits = !arguments.GetValue(_noLogits),
            Note = session.Note,
            Progress = done => session.Progress(string.Create(CultureInfo.InvariantCulture, $"context {done}")),
        };
        var written = run.Execute(data, hooks, output, session.Interrupt);
        session.EndProgress();
        var text = new Report(session.Output).Section($"saved {output}");
        var json = new JsonObject();
        foreach (var (name, shape) in written)
        {
            text.Add(name, $"[{string.Join(", ", shape)}]");
            json[name] = new JsonArray([.. shape.Select(d => (JsonNode)d)]);
        }

        text.Write();
        session.Result(new JsonObject { ["output"] = output, ["tensors"] = json });
    }
}
