using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>One way to use an SAE otherwise than it is loaded.</summary>
/// <param name="Mistake">What would have been wrong if this is right.</param>
/// <param name="Remedy">What to do then.</param>
internal sealed record SaeCheckVariant(string Mistake, string Remedy)
{
    /// <summary>Makes the changed SAE, null where that cannot be; null: the SAE as it is loaded.</summary>
    public Func<Sae?>? Make { get; init; }

    /// <summary>Factor on the input, undone on the output.</summary>
    public double Scale { get; init; } = 1;

    /// <summary>Another hook; null: the stated one.</summary>
    public string? Hook { get; init; }

    /// <summary>Another target; null: the stated one.</summary>
    public string? HookOut { get; init; }

    /// <summary>Whether the first token of every context is left out.</summary>
    public bool SkipFirst { get; init; }

    /// <summary>Whether BOS is put where it is not, or left out where it is.</summary>
    public bool FlipBos { get; init; }
}

/// <summary>The mistakes that are tried: those known from loaders of SAELens, TransformerLens and their neighbours.</summary>
internal static class SaeCheckVariants
{
    /// <summary>All that apply to an SAE.</summary>
    /// <param name="sae">As it is loaded.</param>
    /// <param name="rows">What it is checked on.</param>
    /// <param name="asLoaded">How it does; null if it does not fit the stated hook.</param>
    /// <param name="expectedL0">Features to expect; null: not known.</param>
    public static IEnumerable<SaeCheckVariant> Of(Sae sae, SaeCheckRows rows, SaeCheckScore? asLoaded, double? expectedL0)
    {
        if (rows.Fits && asLoaded is not null)
        {
            foreach (var v in Scales(sae, rows).Concat(Bias(sae)).Concat(Thresholds(sae, rows, asLoaded, expectedL0)).Concat(Transposes(sae)).Concat(Normalisations(sae)).Concat(Rescaling(sae)).Concat(Beginnings(rows)))
                yield return v;
        }

        foreach (var hook in rows.Inputs)
        {
            if (rows.HookNameOut is null && sae.Config.IsTranscoder) continue;
            yield return new SaeCheckVariant($"the hook is wrong: it is for {hook}{(rows.HookName is null ? "" : $", not {rows.HookName}")}", $"set hook_name to {hook}") { Hook = hook };
        }

        if (!rows.Fits) yield break;
        foreach (var hook in rows.Outputs)
            yield return new SaeCheckVariant($"the target is wrong: it is for {hook}, not {rows.HookNameOut}", $"set hook_name_out to {hook}") { HookOut = hook };
    }

    private static IEnumerable<SaeCheckVariant> Scales(Sae sae, SaeCheckRows rows)
    {
        var s = Math.Sqrt(sae.Config.DIn) / rows.MeanNorm;
        // Within a tenth of 1 it makes no difference that could be told.
        if (!double.IsFinite(s) || s <= 0 || Math.Abs(s - 1) < 0.1 || sae.Config.IsTranscoder) yield break;
        var text = s.ToString("0.####", CultureInfo.InvariantCulture);
        yield return new SaeCheckVariant("the activation scale is not folded into the weights",
            $"fold it: W_enc times s, W_dec and b_dec divided by s, with s = sqrt(d_in) / mean norm = {text} here (norm_scaling_factor)")
        { Scale = s };
        yield return new SaeCheckVariant("the activation scale is folded into the weights twice", $"undo one fold: s is {text} here") { Scale = 1 / s };
    }

    private static IEnumerable<SaeCheckVariant> Bias(Sae sae)
    {
        if (sae.Config.IsTranscoder || Array.TrueForAll(sae.BDec.ToArray<float>(), v => v == 0)) yield break;
        var subtracts = sae.Config.ApplyBDecToInput;
        yield return new SaeCheckVariant(
            subtracts ? "b_dec is subtracted from the input and should not be" : "b_dec is not subtracted from the input and should be",
            $"set apply_b_dec_to_input to {(subtracts ? "false" : "true")}")
        { Make = () => Changed(sae, c => c["apply_b_dec_to_input"] = !subtracts) };
    }

    private static IEnumerable<SaeCheckVariant> Thresholds(Sae sae, SaeCheckRows rows, SaeCheckScore asLoaded, double? expectedL0)
    {
        var architecture = sae.Config.Architecture;
        if (architecture is "standard" or "transcoder")
        {
            double[] targets = expectedL0 is { } e ? [e] : [asLoaded.L0 / 2, asLoaded.L0 / 4, asLoaded.L0 / 8, asLoaded.L0 / 16];
            foreach (var target in targets.Where(t => t >= 0.5 && t < 0.7 * asLoaded.L0))
            {
                var threshold = ThresholdFor(sae, rows, target);
                yield return new SaeCheckVariant("the threshold is missing: a jumprelu or batchtopk SAE is loaded as a plain ReLU one",
                    string.Create(CultureInfo.InvariantCulture, $"load it as jumprelu with its threshold (about {threshold:0.####} for all features would fit)"))
                {
                    Make = () => Changed(sae, c => c["architecture"] = architecture == "standard" ? "jumprelu" : "jumprelu_transcoder", state => [.. state, Filled(sae, threshold)]),
                };
            }
        }

        if (!architecture.StartsWith("jumprelu", StringComparison.Ordinal)) yield break;
        var s = Math.Sqrt(sae.Config.DIn) / rows.MeanNorm;
        yield return new SaeCheckVariant("the thresholds are logarithms", "take their exponential") { Make = () => WithThreshold(sae, Math.Exp) };
        if (!double.IsFinite(s) || s <= 0 || Math.Abs(s - 1) < 0.1) yield break;
        const string remedy = "thresholds are compared with pre-activations, which folding the activation scale does not change; keep them as published";
        yield return new SaeCheckVariant("the thresholds are multiplied by the activation scale", remedy) { Make = () => WithThreshold(sae, t => t / s) };
        yield return new SaeCheckVariant("the thresholds are divided by the activation scale", remedy) { Make = () => WithThreshold(sae, t => t * s) };
    }

    private static IEnumerable<SaeCheckVariant> Transposes(Sae sae)
    {
        foreach (var names in new[] { ["W_enc"], ["W_dec"], new[] { "W_enc", "W_dec" } })
        {
            var what = string.Join(" and ", names);
            yield return new SaeCheckVariant($"{what} {(names.Length > 1 ? "are" : "is")} transposed", $"transpose {what}: SAELens' files hold W_enc [d_in, d_sae] and W_dec [d_sae, d_in]")
            {
                // The numbers in the file are read as those of the transposed shape.
                Make = () => Changed(sae, _ => { }, state => [.. state.Select(s => names.Contains(s.Name) ? s with { Values = Sae.Transposed(s.Values, s.Shape[1], s.Shape[0]) } : s)]),
            };
        }
    }

    private static IEnumerable<SaeCheckVariant> Normalisations(Sae sae)
    {
        var own = sae.Config.NormalizeActivations;
        if (own is NormalizeActivations.LayerNorm or NormalizeActivations.ConstantNormRescale)
        {
            yield return new SaeCheckVariant($"the input is normalised ({ConfigJson.Name(own)}) and should not be", "set normalize_activations to none")
            {
                Make = () => Changed(sae, c => c["normalize_activations"] = "none"),
            };
        }

        if (own != NormalizeActivations.LayerNorm)
            yield return new SaeCheckVariant("layer normalisation of the input is missing", "set normalize_activations to layer_norm") { Make = () => Changed(sae, c => c["normalize_activations"] = "layer_norm") };
        if (own != NormalizeActivations.ConstantNormRescale)
        {
            yield return new SaeCheckVariant("rescaling every input to norm sqrt(d_in) is missing", "set normalize_activations to constant_norm_rescale")
            {
                Make = () => Changed(sae, c => c["normalize_activations"] = "constant_norm_rescale"),
            };
        }
    }

    private static IEnumerable<SaeCheckVariant> Rescaling(Sae sae)
    {
        const string field = "rescale_acts_by_decoder_norm";
        if (ConfigJson.ToJson(sae.Config)[field] is not JsonValue value) yield break;
        var on = value.GetValue<bool>();
        yield return new SaeCheckVariant(on ? "features compete by activation times decoder norm and should compete by activation" : "features compete by activation and should compete by activation times decoder norm",
            $"set {field} to {(on ? "false" : "true")}")
        { Make = () => Changed(sae, c => c[field] = !on) };
    }

    private static IEnumerable<SaeCheckVariant> Beginnings(SaeCheckRows rows)
    {
        if (rows.CanFlipBos)
        {
            yield return new SaeCheckVariant(rows.PrependBos ? "contexts begin with BOS and should not" : "contexts should begin with BOS",
                $"set prepend_bos to {(rows.PrependBos ? "false" : "true")}")
            { FlipBos = true };
        }

        if (rows.CanSkipFirst)
        {
            yield return new SaeCheckVariant("the first token (BOS) of every context is included, which the SAE was not trained on",
                "leave it out: exclude_special_tokens, or begin seqpos_slice at 1")
            { SkipFirst = true };
        }
    }

    /// <summary>The threshold at which a plain ReLU SAE has a wanted number of active features a row.</summary>
    private static double ThresholdFor(Sae sae, SaeCheckRows rows, double l0)
    {
        var (x, _) = rows.Of(new SaeCheckVariant("", ""));
        var width = sae.Config.DIn;
        var n = Math.Min(256, x.Length / width);
        using var scope = new TensorScope(sae.Device);
        Shape shape = sae.Config.ReshapeActivations == ReshapeActivations.HookZ ? [n, 1, width] : [n, width];
        var values = sae.Encode(scope, scope.From<float>(x.AsSpan(0, n * width), shape)).Values.ToArray<float>();
        Array.Sort(values);
        var kept = (int)Math.Clamp(l0 * n, 1, values.Length);
        return values.Length == 0 ? 0 : values[^kept];
    }

    private static Sae? WithThreshold(Sae sae, Func<double, double> change) => Changed(sae, _ => { }, state =>
        [.. state.Select(s => s.Name == "threshold" ? new NamedValues(s.Name, s.Shape, Array.ConvertAll(s.Values, t => (float)change(t))) : s)]);

    private static NamedValues Filled(Sae sae, double threshold)
    {
        var values = new float[sae.Config.DSae];
        values.AsSpan().Fill((float)threshold);
        return new NamedValues("threshold", [values.Length], values);
    }

    /// <summary>The same SAE with other settings or tensors; null if there is no such SAE.</summary>
    private static Sae? Changed(Sae sae, Action<JsonObject> settings, Func<IReadOnlyList<NamedValues>, IReadOnlyList<NamedValues>>? tensors = null)
    {
        var json = ConfigJson.ToJson(sae.Config);
        settings(json);
        Sae? changed = null;
        try
        {
            var registry = SaeRegistry.Default;
            var config = (SaeConfig)ConfigJson.FromJson(json, registry.ConfigType(json["architecture"]!.ToString(), training: false), "cfg.json", unknownFields: true);
            changed = registry.Create(config, sae.Device);
            var state = sae.ExportState();
            changed.ImportState(tensors?.Invoke(state) ?? state, "cfg.json");
            return changed;
        }
        catch (InvalidInputException)
        {
            // Settings that contradict each other are no mistake anybody can have made.
            changed?.Dispose();
            return null;
        }
    }
}
