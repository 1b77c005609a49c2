using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Saes.Pretrained;

namespace IlgpuSae.Cli.Verbs;

[Verb("sae list", "List the published SAEs that can be named by release and id.", 61)]
internal sealed class SaeListVerb : Verb
{
    private readonly Option<string?> _release = Options.Text("--release", "NAME", "Show the SAEs of this release.");

    public override IEnumerable<OptionGroup> Groups => [new("List", _release)];

    public override IReadOnlyList<string> Examples => ["ilgpusae sae list --release gpt2-small-res-jb"];

    public override void Run(ParseResult arguments, Session session)
    {
        var text = new Report(session.Output);
        if (arguments.GetValue(_release) is not { } name)
        {
            var releases = PretrainedSaes.Default.Releases;
            text.Section(string.Create(CultureInfo.InvariantCulture, $"{releases.Count} releases, {releases.Sum(r => r.Saes.Count)} SAEs"));
            foreach (var r in releases) text.Add(r.Name, string.Create(CultureInfo.InvariantCulture, $"{(r.OpenIds is null ? $"{r.Saes.Count}" : "")} SAEs on {r.Model}").Trim(), r.Repository);
            text.Write();
            session.Result(new JsonObject { ["releases"] = new JsonArray([.. releases.Select(r => (JsonNode)ToJson(r))]) });
            return;
        }

        var release = PretrainedSaes.Default[name];
        text.Section(string.Create(CultureInfo.InvariantCulture, $"{name}: {release.Saes.Count} SAEs on {release.Model}, {release.Format}, from {release.Repository}"));
        foreach (var s in release.Saes)
        {
            text.Add(s.Id, s.L0 is { } l0 ? $"L0 {Report.Number(l0)}" : "",
                string.Join(", ", new[] { s.VarianceExplained is { } v ? $"explained variance {Report.Number(v)}" : null, s.NeuronpediaId is { } page ? $"neuronpedia.org/{page}" : null }.OfType<string>()));
        }

        text.Write();
        if (release.OpenIds is { } form) session.Output.WriteLine($"  {form}, as the repository has them: huggingface.co/{release.Repository}/tree/main");
        var json = ToJson(release);
        json["saes"] = new JsonArray([.. release.Saes.Select(s => (JsonNode)new JsonObject
        {
            ["id"] = s.Id,
            ["path"] = s.Path,
            ["hook_name"] = s.HookName,
            ["l0"] = s.L0,
            ["variance_explained"] = s.VarianceExplained,
            ["norm_scaling_factor"] = s.NormScalingFactor,
            ["neuronpedia"] = s.NeuronpediaId,
        })]);
        session.Result(json);
    }

    private static JsonObject ToJson(PretrainedRelease r) =>
        new() { ["release"] = r.Name, ["repository"] = r.Repository, ["model"] = r.Model, ["format"] = r.Format, ["count"] = r.Saes.Count };
}
