using System.CommandLine;
using System.Globalization;
using IlgpuSae.Runs;
using IlgpuSae.Saes;

namespace IlgpuSae.Cli.Verbs;

[Verb("sae inspect", "Show what an SAE's file or folder holds: settings, weights, how often features fire.", 60)]
internal sealed class SaeInspectVerb : Verb
{
    private readonly Option<string?> _sae = Options.Text("--sae", "PATH", "Folder or file of the SAE, RELEASE/ID of the published ones, or a repository of the hub: org/name/folder.");

    public override IEnumerable<OptionGroup> Groups => [new("Inspect", _sae)];

    public override void Run(ParseResult arguments, Session session)
    {
        using var device = session.OpenDevice();
        var found = SaeInspection.Of(session.Required(_sae), device, session.Hub, session.Interrupt);
        var c = CultureInfo.InvariantCulture;
        var text = new Report(session.Output).Section(string.Create(c, $"{found.Folder}: {found.Config.Architecture}, {found.Config.DSae} features of {found.Config.DIn} dimensions"));
        text.Add("format", found.Format);
        if (found.PublishedL0 is { } l0) text.Add("published L0", l0);
        foreach (var (name, value) in ConfigJson.ToJson(found.Config))
            if (name is not ("metadata" or "architecture")) text.Add(name, value?.ToJsonString().Trim('"') ?? "null");
        text.Section("metadata");
        foreach (var (name, value) in found.Config.Metadata) text.Add(name, value?.ToJsonString().Trim('"') ?? "null");
        text.Section("weights");
        foreach (var w in found.Weights)
            text.Add(w.Name, w.Shape.ToString(), string.Create(c, $"mean norm of a row {Report.Number(w.MeanRowNorm)}, {Report.Number(w.Least)} to {Report.Number(w.Greatest)}"));
        text.Add("parameters", string.Create(c, $"{found.ParameterCount:N0}"));
        if (found.Sparsity is { } s)
        {
            text.Section("how often features fired in the last window of training");
            text.Add("never", string.Create(c, $"{s.Dead} of {found.Config.DSae}"));
            text.Add("below 1e-5", string.Create(c, $"{s.BelowOneIn100000}"));
            text.Add("median frequency", s.MedianFrequency);
            text.Add("above a tenth", string.Create(c, $"{s.Dense}"));
        }

        text.Write();
        foreach (var note in found.Notes) session.Note(note);
        session.Result(found.ToJson());
    }
}
