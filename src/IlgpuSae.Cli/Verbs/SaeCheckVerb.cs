using System.CommandLine;
using System.Globalization;
using IlgpuSae.Runs;
using IlgpuSae.Saes.Formats;

namespace IlgpuSae.Cli.Verbs;

[Verb("sae check", "Run text through an SAE, say whether it looks right, and name the likely mistake if it does not.", 61)]
internal sealed class SaeCheckVerb : Verb
{
    private static readonly string[] Data =
    [
        nameof(DataConfig.HookName), nameof(DataConfig.HookNameOut), nameof(DataConfig.HookHeadIndex), nameof(DataConfig.Text), nameof(DataConfig.Tokens), nameof(DataConfig.Contexts),
        nameof(DataConfig.ContextSize), nameof(DataConfig.PrependBos),
    ];

    private readonly Option<string?> _sae = Options.Text("--sae", "PATH", "Folder or file of the SAE, RELEASE/ID of the published ones, or a repository of the hub: org/name/folder.");
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "The model it belongs to: a folder, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<int> _rows = Options.Integer("--rows", "Tokens to check on, whole contexts.", 1024, least: 2);
    private readonly Option<double> _l0 = Options.Number("--l0", "Active features a token that the SAE is said to have; 0: what it states itself, if anything.", 0);
    private readonly Option<string?> _as = Options.Text("--published-as", "NAME", "Repository and folder it was published under, where the path does not say it.");
    private readonly Option<double> _scale = Options.Number("--norm-scaling-factor", "Factor on activations that the release states; folded in where the SAE asks for one. 0: none.", 0);
    private readonly OptionTable _table = new();

    public SaeCheckVerb() => _table.Add("Data (what is not given follows the SAE's metadata)", typeof(DataConfig), p => Data.Contains(p.Name));

    public override IEnumerable<OptionGroup> Groups => [new("Check", _sae, _model, _rows, _l0, _as, _scale), .. _table.Groups];

    public override IReadOnlyList<string> Examples => ["ilgpusae sae check --sae output/topk --model gpt2 --text held-out.txt"];

    public override void Run(ParseResult arguments, Session session)
    {
        var sae = session.Required(_sae);
        var fields = _table.Given(arguments);
        fields["model_name"] = session.Required(_model);
        using var device = session.OpenDevice();
        double l0 = arguments.GetValue(_l0), scale = arguments.GetValue(_scale);
        var report = new SaeCheck(device)
        {
            Hub = session.Hub,
            Rows = arguments.GetValue(_rows),
            ExpectedL0 = l0 == 0 ? null : l0,
            Hints = new SaeHints { PublishedAs = arguments.GetValue(_as), NormScalingFactor = scale == 0 ? null : scale },
            Progress = what => session.Progress("trying: " + what),
        }.Execute(sae, fields, session.Interrupt);
        session.EndProgress();
        foreach (var note in report.Notes) session.Note(note);
        var text = new Report(session.Output).Section(string.Create(CultureInfo.InvariantCulture, $"{sae} ({report.Format}) on {report.Rows} tokens at {report.HookName ?? "an unknown hook"}"));
        if (report.ExpectedL0 is { } expected) text.Add("L0 stated", expected);
        if (report.AsLoaded is { } own) text.Add("L0", own.L0).Add("explained variance", own.ExplainedVariance);
        text.Add("verdict", report.LooksRight ? "looks right" : "looks wrong", report.Reason);
        if (report.Likely is { } likely)
        {
            text.Section("likely mistake").Add("", likely.Mistake).Add("", likely.Remedy)
                .Add("L0", likely.Score.L0, "once it is undone").Add("explained variance", likely.Score.ExplainedVariance, "once it is undone");
        }
        else if (!report.LooksRight)
        {
            text.Section(string.Create(CultureInfo.InvariantCulture, $"none of {report.Tried.Count} usual mistakes explains it; the nearest:"));
            foreach (var t in report.Tried.OrderByDescending(t => t.Score.ExplainedVariance).Take(3)) text.Add(t.Mistake, t.Score.ExplainedVariance, string.Create(CultureInfo.InvariantCulture, $"L0 {t.Score.L0:0.##}"));
        }

        text.Write();
        session.Result(report.ToJson());
    }
}
