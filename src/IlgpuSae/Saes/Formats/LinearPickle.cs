using System.Text.RegularExpressions;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// One <c>.pt</c> or <c>.pth</c> of two linear layers with biases: <c>encoder</c> and <c>decoder</c> (DeepSeek-R1's distillation, by
/// qresearch) or <c>encoder_linear</c> and <c>decoder_linear</c> (Goodfire's for Llama 3). Standard SAEs that subtract nothing
/// from their input; matrices are transposes. Model and layer are in the file's name.
/// </summary>
[SaeFormat("linear_pickle", "Two linear layers in one .pt: DeepSeek-R1's distillation, Goodfire's Llama 3")]
public sealed partial class LinearPickle : SaeFormat
{
    /// <inheritdoc/>
    public override bool Recognises(string path) => PickleNames.IsPickle(path) && Path.GetFileName(path) != DictionaryLearning.WeightsFile
        && PickleNames.Of(path) is var names && (Has(names, "encoder") || Has(names, "encoder_linear"));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        using var weights = WeightFile.Open(path);
        var suffix = weights.Contains("encoder_linear.weight") ? "_linear" : "";
        var (dSae, dIn) = weights.Matrix($"encoder{suffix}.weight");
        var name = hints.NameOf(path);
        var file = name[(name.LastIndexOf('/') + 1)..];
        var hook = PublishedConfig.Block(PublishedConfig.Number(Layer().Match(file)), "hook_resid_post");
        var model = file.StartsWith("DeepSeek-R1-Distill-Llama-8B", StringComparison.Ordinal) ? "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
            : file.StartsWith("Llama-3", StringComparison.Ordinal) && file.Contains("-SAE", StringComparison.Ordinal) ? "meta-llama/" + file[..file.IndexOf("-SAE", StringComparison.Ordinal)] : null;
        return new PublishedSae
        {
            Path = path,
            Config = PublishedConfig.Of("standard", dIn, dSae, weights.DtypeOf($"encoder{suffix}.weight"), subtractBDec: false,
                ("model_name", model), ("hook_name", hook), ("context_size", 1024), ("prepend_bos", true), ("dataset_path", "lmsys/lmsys-chat-1m")),
            ReadState = () =>
            {
                using var again = WeightFile.Open(path);
                return
                [
                    again.Read($"decoder{suffix}.bias", "b_dec"),
                    again.Read($"encoder{suffix}.bias", "b_enc"),
                    again.Read($"decoder{suffix}.weight", "W_dec", transposed: true),
                    again.Read($"encoder{suffix}.weight", "W_enc", transposed: true),
                ];
            },
            Notes = hook is null ? ["the file's name does not say a layer (such as ...-l19.pt); give the hook yourself"] : [],
        };
    }

    private static bool Has(IReadOnlyList<string> names, string encoder)
    {
        var decoder = encoder.Replace("encoder", "decoder", StringComparison.Ordinal);
        return new[] { $"{encoder}.weight", $"{encoder}.bias", $"{decoder}.weight", $"{decoder}.bias" }.All(names.Contains);
    }

    [GeneratedRegex(@"l(\d+)\.pth?$", RegexOptions.CultureInvariant)]
    private static partial Regex Layer();
}
