using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Evaluation;
using IlgpuSae.Hub;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>
/// Runs text through an SAE of any known format and says whether its sparsity and reconstruction look right. If they do
/// not, the mistakes that are made when SAEs are carried from one program to another are tried one by one, and the one
/// whose undoing makes it right is named.
/// </summary>
/// <remarks>
/// It looks right if it explains at least half of the variance with a plausible number of features (within a factor of
/// two of the stated L0; else at least one in two rows, and no more than d_in or a quarter of d_sae), and no change
/// leaves half of what it leaves unexplained.
/// </remarks>
/// <param name="device">Where to compute.</param>
public sealed class SaeCheck(Device device)
{
    private const double LeastExplained = 0.5;

    /// <summary>Of two ways to use an SAE that both look right, the better one must be this much better to be believed.</summary>
    private const double ClearlyBetter = 0.5;

    private static readonly string[] FromMetadata = ["hook_name", "hook_name_out", "hook_head_index", "context_size", "prepend_bos", "sequence_separator_token", "disable_concat_sequences"];

    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Rows to check on.</summary>
    public int Rows { get; init; } = 1024;

    /// <summary>What the SAE's path does not say.</summary>
    public SaeHints Hints { get; init; } = SaeHints.None;

    /// <summary>Mean number of active features to expect; null: what the SAE states.</summary>
    public double? ExpectedL0 { get; init; }

    /// <summary>Told what is being tried.</summary>
    public Action<string>? Progress { get; init; }

    /// <summary>Checks an SAE.</summary>
    /// <param name="sae">File or folder of the SAE, or what <see cref="SaeReference"/> understands.</param>
    /// <param name="fields">Fields of <see cref="DataConfig"/> in snake_case: the model, text or tokens, and what is to win over the SAE's metadata.</param>
    /// <param name="cancellation">Stops between two trials.</param>
    /// <exception cref="InvalidInputException">A file cannot be used, or there is nothing to read.</exception>
    public SaeCheckReport Execute(string sae, JsonObject fields, CancellationToken cancellation = default)
    {
        if (Rows < 2) throw new InvalidInputException($"rows: {Rows}; at least 2 are needed");
        var reference = SaeReference.Parse(sae);
        // What the directory says of an SAE needs no further hints.
        var published = reference.Published is null ? SaeFormats.Default.Describe(sae, Hints) : reference.Describe(Hub, cancellation);
        using var loaded = SaeFormats.Load(published, device);
        var data = Data(fields, loaded.Config.Metadata);
        using var language = LanguageModel.Load(data.ModelName!, device, hub: Hub, cancellation: cancellation);
        using var rows = new SaeCheckRows(language, data, loaded.Config, Rows);
        var expected = ExpectedL0 ?? published.PublishedL0;
        var asLoaded = rows.Fits ? Score(loaded, rows, new SaeCheckVariant("", ""), cancellation) : null;

        var tried = new List<SaeCheckFinding>();
        foreach (var variant in SaeCheckVariants.Of(loaded, rows, asLoaded, expected))
        {
            cancellation.ThrowIfCancellationRequested();
            Progress?.Invoke(variant.Mistake);
            using var changed = variant.Make?.Invoke();
            if (variant.Make is not null && changed is null) continue;
            tried.Add(new SaeCheckFinding(variant.Mistake, variant.Remedy, Score(changed ?? loaded, rows, variant, cancellation)));
        }

        return Judged(new SaeCheckReport
        {
            Format = published.Format,
            HookName = rows.HookName,
            Rows = rows.Count,
            ExpectedL0 = expected,
            AsLoaded = asLoaded,
            LooksRight = false,
            Reason = "",
            Tried = tried,
            Notes = [.. published.Notes, .. rows.Notes],
        }, loaded.Config);
    }

    private static DataConfig Data(JsonObject fields, SaeMetadata metadata)
    {
        var own = new JsonObject();
        foreach (var name in FromMetadata)
            if (metadata[name] is { } value) own[name] = value;
        foreach (var (name, value) in fields) own[name] = value?.DeepClone();
        var data = (DataConfig)ConfigJson.FromJson(own, typeof(DataConfig), "options");
        if (data.ModelName is null) throw new InvalidInputException("model_name: missing; give the model the SAE belongs to");
        if ((data.Text ?? data.Tokens) is null) throw new InvalidInputException("text: missing; give text or tokens for the model to read");
        // The hook may be unknown: that is one of the things to find out.
        (data with { HookName = data.HookName ?? "unknown" }).Validate();
        return data;
    }

    private static SaeCheckReport Judged(SaeCheckReport report, SaeConfig config)
    {
        bool Plausible(SaeCheckScore s) => s.ExplainedVariance >= LeastExplained && PlausibleL0(s.L0, report.ExpectedL0, config);
        var fine = report.AsLoaded is { } own && Plausible(own);
        var unexplained = report.AsLoaded is { } a ? 1 - a.ExplainedVariance : double.PositiveInfinity;
        var better = report.Tried.Where(t => Plausible(t.Score) && 1 - t.Score.ExplainedVariance <= (fine ? ClearlyBetter * unexplained : unexplained)).MinBy(t => 1 - t.Score.ExplainedVariance);
        // Leaving the first token out changes the rows, not the SAE: it explains what is wrong, never what is right.
        if (fine && better is not null && better.Mistake.Contains("BOS", StringComparison.Ordinal)) better = null;
        if (better is not null) return report with { LooksRight = false, Likely = better, Reason = Describe(report, config) };
        return report with { LooksRight = fine, Reason = fine ? "sparsity and reconstruction look right" : Describe(report, config) };
    }

    private static bool PlausibleL0(double l0, double? expected, SaeConfig config) => expected is { } e
        ? l0 >= 0.5 * e && l0 <= 2 * e
        : l0 >= 0.5 && l0 <= Math.Min(config.DIn, Math.Max(config.DSae / 4.0, 1));

    private static string Describe(SaeCheckReport report, SaeConfig config)
    {
        if (report.AsLoaded is not { } s) return report.HookName is null ? "the SAE states no hook" : $"{report.HookName} does not fit the SAE";
        var c = CultureInfo.InvariantCulture;
        if (!PlausibleL0(s.L0, report.ExpectedL0, config))
            return string.Create(c, $"L0 is {s.L0:0.##}, {(report.ExpectedL0 is { } e ? $"where {e:0.##} is stated" : s.L0 < 0.5 ? "too few features to explain anything" : "too many features for a sparse code")}");
        if (s.ExplainedVariance < LeastExplained) return string.Create(c, $"it explains {s.ExplainedVariance:0.###} of the variance, where at least {LeastExplained} is to be expected");
        return string.Create(c, $"it explains {s.ExplainedVariance:0.###} of the variance, and twice as well with one change");
    }

    private SaeCheckScore Score(Sae sae, SaeCheckRows rows, SaeCheckVariant variant, CancellationToken cancellation)
    {
        const int batch = 256;
        var (x, target) = rows.Of(variant);
        int dIn = sae.Config.DIn, dOut = sae.Config.OutputWidth, n = x.Length / dIn;
        var statistics = new ReconstructionStatistics(dOut);
        long active = 0;
        for (var done = 0; done < n; done += batch)
        {
            cancellation.ThrowIfCancellationRequested();
            var part = Math.Min(batch, n - done);
            using var scope = new TensorScope(device);
            var values = x.AsSpan(done * dIn, part * dIn).ToArray();
            if (variant.Scale != 1)
                foreach (ref var v in values.AsSpan()) v = (float)(v * variant.Scale);
            Shape shape = sae.Config.ReshapeActivations == ReshapeActivations.HookZ ? [part, 1, dIn] : [part, dIn];
            var f = sae.Encode(scope, scope.From<float>(values, shape), out var frame);
            var y = sae.Decode(scope, f, frame).ToArray<float>();
            if (variant.Scale != 1 && !sae.Config.IsTranscoder)
                foreach (ref var v in y.AsSpan()) v = (float)(v / variant.Scale);
            foreach (var v in f.Values.ToArray<float>())
                if (v != 0) active++;
            // A reconstruction beyond all bounds explains nothing, however its square would round.
            foreach (ref var v in y.AsSpan())
                if (!float.IsFinite(v)) v = 1e18f;
            statistics.Add(target.AsSpan(done * dOut, part * dOut), y);
        }

        return new SaeCheckScore((double)active / n, statistics.Results().Quality.ExplainedVariance);
    }
}
