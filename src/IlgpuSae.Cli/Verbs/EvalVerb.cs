using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Runs;
using IlgpuSae.Saes;

namespace IlgpuSae.Cli.Verbs;

[Verb("eval", "Judge an SAE: reconstruction, sparsity, and what it does to the model's predictions.", 40)]
internal sealed class EvalVerb : Verb
{
    private static readonly string[] TrainingOnly =
    [
        nameof(DataConfig.ModelName), nameof(DataConfig.Shuffle), nameof(DataConfig.EvalContexts), nameof(DataConfig.NEvalBatches),
        nameof(DataConfig.EvalBatchSizePrompts), nameof(DataConfig.NBatchesInBuffer), nameof(DataConfig.StoreBatchSizePrompts), nameof(DataConfig.SeqposSlice),
    ];

    private readonly Option<string?> _sae = Options.Text("--sae", "DIR", "Folder of the SAE, RELEASE/ID of the published ones, or a repository of the hub: org/name/folder.");
    private readonly Option<string?> _model = Options.Text("--model", "DIR", "The model it belongs to: a folder, a name such as gpt2-small, or a repository of the hub.");
    private readonly Option<string?> _synthetic = new("--synthetic")
    {
        HelpName = "[NAME]",
        Arity = ArgumentArity.ZeroOrOne,
        Description = $"Judge on held-out rows whose features are known: the SAE's own source, or {string.Join(", ", SyntheticPreset.Names)}.",
    };

    private readonly OptionTable _table = new();

    public EvalVerb()
    {
        _table.Add("Data (what is not given follows the SAE's metadata)", typeof(DataConfig), p => !TrainingOnly.Contains(p.Name));
        _table.Add("Measure", typeof(EvaluationOptions));
        _table.Add("Synthetic source (what is not given follows the SAE's)", typeof(SyntheticConfig), p => p.Name is nameof(SyntheticConfig.Seed));
    }

    public override IEnumerable<OptionGroup> Groups => [new("Eval", _sae, _model, _synthetic), .. _table.Groups];

    public override IReadOnlyList<string> Examples =>
    [
        "ilgpusae eval --sae output/topk --model gpt2 --text held-out.txt",
        "ilgpusae eval --sae output/topk --model gpt2 --tokens tokens.safetensors --contexts 1440:1600 --n-eval-reconstruction-batches null",
        "ilgpusae eval --sae output/topk-synthetic --synthetic",
    ];

    public override void Run(ParseResult arguments, Session session)
    {
        var sae = session.Required(_sae);
        var fields = _table.Given(arguments);
        if (arguments.GetValue(_model) is { } model) fields["model_name"] = model;
        if (arguments.GetResult(_synthetic) is { Implicit: false }) fields["synthetic"] = arguments.GetValue(_synthetic);
        using var device = session.OpenDevice();
        var run = new EvaluationRun(device)
        {
            Hub = session.Hub,
            Note = session.Note,
            Progress = (done, all) => session.Progress(string.Create(CultureInfo.InvariantCulture, $"batch {done}{(all is null ? "" : $"/{all}")}")),
        };
        var report = run.Execute(sae, fields, session.Interrupt);
        session.EndProgress();
        EvaluationReport.Write(session, report.Result, report.Sae.DSae, report.Data.Text ?? report.Data.DatasetPath ?? report.Data.Tokens ?? report.Data.Activations ?? "held-out synthetic rows");
        if (report.GroundTruth is { } truth) GroundTruthReport.Write(session, truth, report.Sae.DSae);
        var json = new JsonObject
        {
            ["sae"] = sae,
            ["eval_cfg"] = ConfigJson.ToJson(report.Options),
            ["data"] = ConfigJson.ToJson(report.Data),
            ["sae_cfg"] = ConfigJson.ToJson(report.Sae),
        };
        foreach (var (name, value) in report.Result.ToJson()) json[name] = value?.DeepClone();
        if (report.Synthetic is { } synthetic) json["synthetic"] = ConfigJson.ToJson(synthetic);
        if (report.GroundTruth is not null) json["ground_truth"] = report.GroundTruth.ToJson();
        session.Result(json);
    }
}
