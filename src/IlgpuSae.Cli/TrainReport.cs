using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using IlgpuSae.Runs;

namespace IlgpuSae.Cli;

/// <summary>What is shown of a training run that has ended.</summary>
internal static class TrainReport
{
    public static void Write(Session session, TrainingRunReport report)
    {
        var training = report.Training;
        var c = CultureInfo.InvariantCulture;
        var text = new Report(session.Output);
        text.Section(string.Create(c, $"trained {report.Config.Sae.Architecture}: {training.Steps} steps, {training.Samples} tokens, {training.Elapsed.TotalSeconds:0.0} s"));
        if (training.Samples > 0) text.Add("tokens a second", string.Create(c, $"{training.Samples / training.Elapsed.TotalSeconds:0}"));
        if (training.Last is { } last) text.Add("loss of the last step", last.Loss);
        text.Add("dead features", string.Create(c, $"{training.DeadFeatures} of {report.Config.Sae.DSae}"), $"not active for {report.Config.Trainer.DeadFeatureWindow} steps");
        if (training.ActivationScale is { } scale) text.Add("activation scale", scale, "folded into the weights");
        if (report.Wraps > 0) text.Add("data read again", string.Create(c, $"{report.Wraps} times"));
        text.Write();
        if (report.Evaluation is { } evaluation) EvaluationReport.Write(session, evaluation, report.Config.Sae.DSae, report.EvaluatedOn);
        if (report.Recovery is { } recovery)
        {
            text.Section("true features")
                .Add("found", string.Create(c, $"{recovery.Found} of {recovery.TrueFeatures}"), "each by a feature of its own with |cosine| >= 0.9")
                .Add("mean best |cosine|", recovery.MeanMaxCosine)
                .Write();
        }

        if (report.GroundTruth is { } truth) GroundTruthReport.Write(session, truth, report.Config.Sae.DSae);
        if (report.Config.OutputPath is { } folder && training.Steps > 0)
        {
            session.Output.WriteLine($"saved {folder}");
            if (!session.Quiet) session.Output.WriteLine($"next: ilgpusae sae inspect --sae {folder}");
        }

        session.Result(Json(report));
    }

    private static JsonObject Json(TrainingRunReport report)
    {
        var training = report.Training;
        var json = new JsonObject
        {
            ["end"] = JsonNamingPolicy.SnakeCaseLower.ConvertName(training.End.ToString()),
            ["steps"] = training.Steps,
            ["training_samples"] = training.Samples,
            ["seconds"] = training.Elapsed.TotalSeconds,
            ["dead_features"] = training.DeadFeatures,
            ["activation_scale"] = training.ActivationScale,
            ["last_step"] = training.Last?.ToJson(),
            ["output_path"] = report.Config.OutputPath,
            ["epochs_completed"] = report.Wraps,
        };
        if (report.Evaluation is { } evaluation)
        {
            json["evaluated_on"] = report.EvaluatedOn;
            foreach (var (name, value) in evaluation.ToJson()) json[name] = value?.DeepClone();
        }

        if (report.Recovery is { } recovery)
        {
            json["recovery"] = new JsonObject
            {
                ["true_features"] = recovery.TrueFeatures,
                ["found"] = recovery.Found,
                ["mean_max_cosine"] = recovery.MeanMaxCosine,
            };
        }

        if (report.GroundTruth is not null) json["ground_truth"] = report.GroundTruth.ToJson();
        return json;
    }
}
