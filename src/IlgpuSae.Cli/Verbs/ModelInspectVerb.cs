using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Models;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Cli.Verbs;

[Verb("model inspect", "Show what a model is made of, and its hooks.", 70)]
internal sealed class ModelInspectVerb : Verb
{
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "Folder of the model, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<bool> _check = Options.Switch("--check", "Also load the weights, which checks every tensor's name, type and shape.");

    public override IEnumerable<OptionGroup> Groups => [new("Inspect", _model, _check)];

    public override void Run(ParseResult arguments, Session session)
    {
        var folder = ModelReference.Fetch(session.Required(_model), session.Hub, session.Interrupt);
        var spec = HookedTransformer.ReadSpec(folder);
        var hooks = new HookNames(spec);
        var parameters = spec.Parameters().Sum(p => p.Shape.Count);
        var c = CultureInfo.InvariantCulture;
        var json = new JsonObject { ["spec"] = ConfigJson.ToJson(spec), ["parameters"] = parameters };
        var text = new Report(session.Output).Section(string.Create(c, $"{folder}: {spec.Architecture}, {parameters:N0} parameters"));
        foreach (var (name, value) in ConfigJson.ToJson(spec)) text.Add(name, value?.ToJsonString().Trim('"') ?? "none");
        if (TokenizerOf(folder, session) is { } tokenizer)
        {
            text.Section("tokenizer").Add("tokens", tokenizer.VocabularySize.ToString(c)).Add("BOS", tokenizer.BosToken?.ToString(c) ?? "none")
                .Add("EOS", tokenizer.EosToken?.ToString(c) ?? "none").Add("begins text with BOS", tokenizer.AddsBos ? "yes" : "no");
        }

        text.Section(string.Create(c, $"hooks ({hooks.All.Count}; those of block 0 stand for all {spec.NLayers} blocks)"));
        foreach (var point in hooks.All.Where(h => h.Layer is null or 0)) text.Add(point.Name, point.ToString()[(point.Name.Length + 1)..], point.OnRequest ? "on request" : "");
        text.Write();
        json["hooks"] = new JsonArray([.. hooks.All.Select(h => (JsonNode)h.Name)]);
        if (arguments.GetValue(_check))
        {
            using var device = session.OpenDevice();
            HookedTransformer.Load(folder, device).Dispose();
            session.Output.WriteLine("weights: complete, of the right types and shapes");
        }

        session.Result(json);
    }

    /// <summary>The folder's tokenizer; a model without one is still worth a look.</summary>
    private static Tokenizer? TokenizerOf(string folder, Session session)
    {
        try
        {
            return Tokenizer.Load(folder);
        }
        catch (InvalidInputException e)
        {
            session.Note($"no tokenizer: {e.Message}");
            return null;
        }
    }
}
