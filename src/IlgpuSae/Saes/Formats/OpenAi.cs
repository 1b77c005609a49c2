using System.Globalization;
using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// OpenAI's sparse_autoencoder: one <c>LAYER.pt</c> in a folder named after the place in GPT-2 small. pre_bias is subtracted
/// and added back (b_dec), encoder.weight and decoder.weight are transposes. With TopK the input is layer-normed and the
/// output scaled back; with ReLU it is not.
/// </summary>
/// <remarks>Source: Autoencoder.from_state_dict of that repository, which ties normalisation to TopK in the same way.</remarks>
[SaeFormat("openai", "OpenAI's sparse_autoencoder: LAYER.pt")]
public sealed partial class OpenAi : SaeFormat
{
    private static readonly (string Place, string Hook)[] Places =
    [
        ("resid_delta_attn", "hook_attn_out"),
        ("resid_delta_mlp", "hook_mlp_out"),
        ("resid_post_attn", "hook_resid_mid"),
        ("resid_post_mlp", "hook_resid_post"),
        ("mlp_post_act", "mlp.hook_post"),
    ];

    /// <inheritdoc/>
    public override bool Recognises(string path) =>
        PickleNames.IsPickle(path) && PickleNames.Of(path) is { } names && names.Contains("pre_bias") && names.Contains("latent_bias") && names.Contains("encoder.weight");

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        using var file = PyTorchFile.Open(path);
        using var weights = WeightFile.Of(file);
        var (dSae, dIn) = weights.Matrix("encoder.weight");
        var activation = file.Values["activation"]?.ToString() ?? "ReLU";
        var name = hints.NameOf(path);
        var layer = PublishedConfig.Number(Layer().Match(name));
        var place = Array.Find(Places, p => name.Contains(p.Place, StringComparison.Ordinal)).Hook;
        var hook = place is null ? null : PublishedConfig.Block(layer, place);
        var config = PublishedConfig.Of(activation == "TopK" ? "topk" : "standard", dIn, dSae, weights.DtypeOf("encoder.weight"), subtractBDec: true,
            ("model_name", "gpt2-small"), ("hook_name", hook), ("context_size", 64), ("prepend_bos", false), ("dataset_path", "Skylion007/openwebtext"));
        int? k = null;
        switch (activation)
        {
            case "TopK":
                var state = file.Values["activation_state_dict"];
                if (!int.TryParse(state?["k"]?.ToString(), NumberStyles.None, CultureInfo.InvariantCulture, out var stated))
                    throw new InvalidFileException(path, "is TopK, but activation_state_dict.k is no number");
                if (state["postact_fn"]?.ToString() is { } post and not "ReLU")
                    throw new InvalidFileException(path, $"is TopK with postact_fn \"{post}\"; known: ReLU");
                config["k"] = k = stated;
                config["rescale_acts_by_decoder_norm"] = false;
                config["normalize_activations"] = "layer_norm";
                break;
            case "ReLU":
                break;
            default:
                throw new InvalidFileException(path, $"has the activation \"{activation}\"; known: ReLU, TopK");
        }

        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () => State(path),
            ReadLogSparsity = () => LogSparsity(path),
            PublishedL0 = k,
            Notes = hook is null ? ["the path does not say where in GPT-2 it belongs (such as resid_post_mlp_v5_32k/autoencoders/8.pt); give the hook yourself"] : [],
        };
    }

    private static List<NamedValues> State(string path)
    {
        using var weights = WeightFile.Open(path);
        return
        [
            weights.Read("pre_bias", "b_dec"),
            weights.Read("latent_bias", "b_enc"),
            // A tied decoder is the encoder, which is saved once more under its own name.
            weights.Contains("decoder.weight") ? weights.Read("decoder.weight", "W_dec", transposed: true) : weights.Read("encoder.weight", "W_dec"),
            weights.Read("encoder.weight", "W_enc", transposed: true),
        ];
    }

    private static float[]? LogSparsity(string path)
    {
        using var weights = WeightFile.Open(path);
        return weights.Contains("latents_activation_frequency")
            ? Array.ConvertAll(weights.Floats("latents_activation_frequency"), f => MathF.Log10(f + 1e-10f))
            : null;
    }

    [GeneratedRegex(@"(\d+)\.pt$", RegexOptions.CultureInvariant)]
    private static partial Regex Layer();
}
