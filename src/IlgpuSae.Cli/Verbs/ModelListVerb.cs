using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Models;

namespace IlgpuSae.Cli.Verbs;

[Verb("model list", "List the models known by name, with hub ids and sizes.", 69)]
internal sealed class ModelListVerb : Verb
{
    private readonly Option<string?> _match = Options.Text("--match", "TEXT", "Only models whose name, hub id or architecture has this in it.");

    public override IEnumerable<OptionGroup> Groups => [new("List", _match)];

    public override IReadOnlyList<string> Examples => ["ilgpusae model list --match pythia"];

    public override void Run(ParseResult arguments, Session session)
    {
        var match = arguments.GetValue(_match) ?? "";
        var models = ModelNames.All.Where(m => new[] { m.Name, m.HubId, m.Architecture }.Concat(m.OtherNames)
            .Any(n => n.Contains(match, StringComparison.OrdinalIgnoreCase))).ToList();
        var c = CultureInfo.InvariantCulture;
        var text = new Report(session.Output).Section(string.Create(c, $"{models.Count} of {ModelNames.All.Count} models"));
        var json = new JsonArray();
        foreach (var m in models)
        {
            var size = m.Parameters >= 1_000_000_000 ? string.Create(c, $"{m.Parameters / 1e9:0.0} B") : string.Create(c, $"{m.Parameters / 1e6:0} M");
            text.Add(m.Name, m.HubId, string.Create(c, $"{m.Architecture}, {size}, {m.Layers} layers, d_model {m.DModel}, {m.Heads} heads"));
            json.Add(new JsonObject
            {
                ["name"] = m.Name,
                ["hub_id"] = m.HubId,
                ["architecture"] = m.Architecture,
                ["n_params"] = m.Parameters,
                ["n_layers"] = m.Layers,
                ["d_model"] = m.DModel,
                ["n_heads"] = m.Heads,
                ["other_names"] = new JsonArray([.. m.OtherNames.Select(n => (JsonNode)n)]),
            });
        }

        text.Write();
        session.Result(new JsonObject { ["models"] = json });
    }
}
