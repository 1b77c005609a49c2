using System.Text.Json.Nodes;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// dictionary_learning: <c>ae.pt</c>, a state dictionary, and <c>config.json</c> with the trainer's settings. The class decides:
/// AutoEncoder and AutoEncoderNew (standard; the latter subtracts nothing from its input), GatedAutoEncoder, AutoEncoderTopK,
/// BatchTopKSAE and MatryoshkaBatchTopKSAE (jumprelu at the threshold they learned), JumpReluAutoEncoder. Gated and jumprelu
/// features are in units of decoder rows of norm 1, so other norms are folded in.
/// </summary>
/// <remarks>SAELens 6.18 loads BatchTopK and JumpReLU as plain ReLU; their threshold is honoured here.</remarks>
[SaeFormat("dictionary_learning", "dictionary_learning: ae.pt, config.json")]
public sealed class DictionaryLearning : SaeFormat
{
    internal const string WeightsFile = "ae.pt";
    internal const string ConfigFile = "config.json";

    /// <inheritdoc/>
    public override bool Recognises(string path) => File.Exists(Path.Combine(path, WeightsFile))
        || PickleNames.IsPickle(path) && PickleNames.Of(path) is var names && !names.Contains("decoder_linear.weight") && ClassOf(names) is not null
            && !(names.Contains("decoder.bias") && Path.GetFileName(path) != WeightsFile);

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var file = Directory.Exists(path) ? Path.Combine(path, WeightsFile) : path;
        var settings = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(file))!, ConfigFile);
        var config = File.Exists(settings) ? JsonConfig.Read(settings) : null;
        var trainer = config?.GetObjectOrNull("trainer");
        using var weights = WeightFile.Open(file);
        var kind = trainer?.GetStringOrNull("dict_class") is { } stated ? Bare(stated) : ClassOf(weights.Names)
            ?? throw new InvalidFileException(file, $"its tensors ({string.Join(", ", weights.Names.Take(8))}) are of no class of dictionary_learning; {ConfigFile} may say which");
        var encoder = weights.FirstOf("encoder.weight", "W_enc");
        var (dSae, dIn) = weights.Matrix(encoder);
        if (encoder == "W_enc") (dSae, dIn) = (dIn, dSae);
        Agree(trainer, "activation_dim", dIn, encoder);
        Agree(trainer, "dict_size", dSae, encoder);

        var (architecture, threshold) = kind switch
        {
            "AutoEncoder" or "AutoEncoderNew" => ("standard", Threshold.None),
            "GatedAutoEncoder" => ("gated", Threshold.None),
            "AutoEncoderTopK" => ("topk", Threshold.None),
            "BatchTopKSAE" or "MatryoshkaBatchTopKSAE" => ("jumprelu", Threshold.One),
            "JumpReluAutoEncoder" => ("jumprelu", Threshold.Each),
            _ => throw new InvalidFileException(config is null ? file : settings,
                $"dict_class is \"{kind}\"; known: AutoEncoder, AutoEncoderNew, AutoEncoderTopK, BatchTopKSAE, GatedAutoEncoder, JumpReluAutoEncoder, MatryoshkaBatchTopKSAE"),
        };
        var subtract = kind switch
        {
            "AutoEncoderNew" => false,
            "JumpReluAutoEncoder" => trainer?.GetBool("apply_b_dec_to_input", false) ?? false,
            _ => true,
        };
        var buffer = config?.GetObjectOrNull("buffer");
        var json = PublishedConfig.Of(architecture, dIn, dSae, weights.DtypeOf(encoder), subtract,
            ("model_name", trainer?.GetStringOrNull("lm_name")?.Split('/')[^1]), ("hook_name", Hook(trainer)),
            ("context_size", buffer is not null && buffer.Has("ctx_len") ? buffer.GetInt("ctx_len") : null), ("prepend_bos", true));
        double? k = weights.Contains("k") ? weights.Scalar("k") : trainer is not null && trainer.Has("k") ? trainer.GetInt("k") : null;
        if (architecture == "topk") json["k"] = (int)(k ?? throw new InvalidFileException(file, "says no k: neither a tensor k nor trainer.k in config.json"));
        var notes = new List<string>();
        if (threshold == Threshold.One && weights.Scalar("threshold") < 0) notes.Add("its threshold was never set in training (it is negative): it fires like a plain ReLU");
        return new PublishedSae
        {
            Path = file,
            Config = json,
            ReadState = () => State(file, encoder, architecture, threshold, dSae),
            UnitDecoder = architecture == "gated" || threshold == Threshold.Each,
            PublishedL0 = k,
            Notes = notes,
        };
    }

    /// <inheritdoc/>
    public override bool Writes => true;

    /// <inheritdoc/>
    public override void Write(string folder, Sae sae, float[]? logSparsity)
    {
        const string name = "dictionary_learning";
        RequirePlain(name, sae);
        var json = ConfigJson.ToJson(sae.Config);
        var state = StateOf(sae);
        var kind = KindOf(name, sae, json, state);
        if (kind is "GatedAutoEncoder" or "JumpReluAutoEncoder" && !SaeFormats.IsUnit(sae))
            throw Inexpressible(name, $"{kind} counts features in units of decoder rows of norm 1, and these have other norms; fold the decoder's norms first");
        var writer = new PyTorchWriter();
        void Add(string file, string own, bool transposed = false)
        {
            var s = state[own];
            long[] shape = [.. s.Shape.Dims.ToArray().Select(d => (long)d)];
            writer.Add(file, transposed ? [shape[1], shape[0]] : shape, transposed ? Sae.Transposed(s.Values, s.Shape[0], s.Shape[1]) : s.Values);
        }

        var rows = kind != "JumpReluAutoEncoder";
        Add(kind switch { "AutoEncoder" => "bias", "AutoEncoderNew" => "decoder.bias", "GatedAutoEncoder" => "decoder_bias", _ => "b_dec" }, "b_dec");
        Add(rows ? "encoder.weight" : "W_enc", "W_enc", rows);
        Add(rows ? "decoder.weight" : "W_dec", "W_dec", rows);
        if (kind == "GatedAutoEncoder")
        {
            Add("r_mag", "r_mag");
            Add("gate_bias", "b_gate");
            Add("mag_bias", "b_mag");
        }
        else
        {
            Add(rows ? "encoder.bias" : "b_enc", "b_enc");
        }

        if (kind == "JumpReluAutoEncoder") Add("threshold", "threshold");
        var k = json["k"]?.GetValue<int>();
        if (kind == "AutoEncoderTopK") writer.Add("k", [], new[] { k!.Value }).Add("threshold", [], [-1f]);
        if (kind == "BatchTopKSAE") writer.Add("threshold", [], [state["threshold"].Values[0]]);
        writer.Save(Path.Combine(folder, WeightsFile));
        var metadata = sae.Config.Metadata;
        var trainer = new JsonObject { ["dict_class"] = kind, ["activation_dim"] = sae.Config.DIn, ["dict_size"] = sae.Config.DSae, ["lm_name"] = metadata["model_name"] };
        if (kind == "JumpReluAutoEncoder") trainer["apply_b_dec_to_input"] = sae.Config.ApplyBDecToInput;
        if (k is not null) trainer["k"] = k;
        var hook = metadata.Get<string>("hook_name")?.Split('.');
        if (hook is ["blocks", var layer, var place] && int.TryParse(layer, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out var l)
            && Array.Find(Submodules, s => s.Hook == place).Name is { } module)
        {
            trainer["layer"] = l;
            trainer["submodule_name"] = $"{module}_layer_{l}";
        }

        SaeLensFolder.WriteJson(Path.Combine(folder, ConfigFile), new JsonObject { ["trainer"] = trainer, ["buffer"] = new JsonObject { ["ctx_len"] = metadata["context_size"], ["d_submodule"] = sae.Config.DIn } });
    }

    private static readonly (string Name, string Hook)[] Submodules = [("resid_post", "hook_resid_post"), ("mlp_out", "hook_mlp_out"), ("attention_out", "hook_attn_out")];

    private static string KindOf(string name, Sae sae, JsonObject json, Dictionary<string, NamedValues> state)
    {
        var subtracts = sae.Config.ApplyBDecToInput;
        if (sae.Config.Architecture is "topk" or "gated" && !subtracts) throw Inexpressible(name, $"apply_b_dec_to_input is false, and its {sae.Config.Architecture} class always subtracts");
        return sae.Config.Architecture switch
        {
            "standard" => subtracts ? "AutoEncoder" : "AutoEncoderNew",
            "gated" => "GatedAutoEncoder",
            "topk" when json["rescale_acts_by_decoder_norm"]?.GetValue<bool>() == true => throw Inexpressible(name, "rescale_acts_by_decoder_norm is true; fold the decoder's norms first"),
            "topk" => "AutoEncoderTopK",
            "jumprelu" when subtracts && Array.TrueForAll(state["threshold"].Values, t => t == state["threshold"].Values[0]) => "BatchTopKSAE",
            "jumprelu" => "JumpReluAutoEncoder",
            var other => throw Inexpressible(name, $"its architecture is {other}, and dictionary_learning has standard, gated, topk and jumprelu"),
        };
    }

    private enum Threshold
    {
        None,
        One,
        Each,
    }

    private static List<NamedValues> State(string file, string encoder, string architecture, Threshold threshold, int dSae)
    {
        using var weights = WeightFile.Open(file);
        var rows = encoder == "encoder.weight";
        List<NamedValues> state =
        [
            weights.Read(weights.FirstOf("b_dec", "bias", "decoder_bias", "decoder.bias"), "b_dec"),
            weights.Read(rows ? "decoder.weight" : "W_dec", "W_dec", transposed: rows),
            weights.Read(encoder, "W_enc", transposed: rows),
        ];
        if (architecture == "gated")
        {
            state.AddRange([weights.Read("gate_bias", "b_gate"), weights.Read("mag_bias", "b_mag"), weights.Read("r_mag", "r_mag")]);
            return state;
        }

        state.Add(weights.Read(rows ? "encoder.bias" : "b_enc", "b_enc"));
        if (threshold == Threshold.Each) state.Add(weights.Read("threshold", "threshold"));
        if (threshold == Threshold.One)
        {
            var values = new float[dSae];
            values.AsSpan().Fill((float)weights.Scalar("threshold"));
            state.Add(new NamedValues("threshold", [dSae], values));
        }

        return state;
    }

    /// <summary>The class that tensors of these names belong to; null if it cannot be told.</summary>
    private static string? ClassOf(IReadOnlyList<string> names)
    {
        bool Has(params string[] wanted) => wanted.All(names.Contains);
        if (Has("W_enc", "b_enc", "W_dec", "b_dec", "threshold")) return names.Contains("group_sizes") ? "MatryoshkaBatchTopKSAE" : "JumpReluAutoEncoder";
        if (!Has("encoder.weight", "decoder.weight")) return null;
        if (Has("decoder_bias", "gate_bias", "mag_bias", "r_mag")) return "GatedAutoEncoder";
        if (!Has("encoder.bias")) return null;
        if (Has("bias")) return "AutoEncoder";
        if (Has("decoder.bias")) return "AutoEncoderNew";
        // TopK and BatchTopK hold the same tensors since both learn a threshold.
        return Has("b_dec", "k") && !names.Contains("threshold") ? "AutoEncoderTopK" : null;
    }

    private static string Bare(string name)
    {
        var quoted = name.Split('\'');
        var bare = quoted.Length == 3 ? quoted[1] : name;
        return bare[(bare.LastIndexOf('.') + 1)..];
    }

    private static void Agree(JsonConfig? trainer, string key, int found, string tensor)
    {
        if (trainer is not null && trainer.Has(key) && trainer.GetInt(key) != found)
            throw trainer.Wrong(key, $"is {trainer.GetInt(key)}, but tensor {tensor} of {WeightsFile} has {found}");
    }

    private static string? Hook(JsonConfig? trainer)
    {
        if (trainer is null || !trainer.Has("layer")) return null;
        var module = trainer.GetStringOrNull("submodule_name") ?? "";
        return PublishedConfig.Block(trainer.GetInt("layer"), module switch
        {
            _ when module.StartsWith("mlp", StringComparison.Ordinal) => "hook_mlp_out",
            _ when module.StartsWith("att", StringComparison.Ordinal) => "hook_attn_out",
            _ => "hook_resid_post",
        });
    }
}
