using System.Globalization;
using System.Text.RegularExpressions;
using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// One layer of a cross-layer transcoder as mntss publishes them: <c>W_enc_L.safetensors</c>, <c>W_dec_L.safetensors</c> and
/// <c>config.yaml</c>; the path is that of the encoder's file. The encoder is transposed; decoder rows
/// [d_sae, layers from L on, d_model] are summed over the layers, so activations are right and reconstructions are not.
/// </summary>
[SaeFormat("clt_layer", "One layer of a cross-layer transcoder (mntss): W_enc_L.safetensors, W_dec_L.safetensors, config.yaml")]
public sealed partial class CltLayer : SaeFormat
{
    internal const string Warning =
        "one layer of a cross-layer transcoder: its decoder rows are summed over the layers they write to, so feature activations are right, but a reconstruction needs all layers";

    /// <inheritdoc/>
    public override bool Recognises(string path) => Encoder().Match(path) is { Success: true } && File.Exists(path) && File.Exists(In(path, "config.yaml"));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var layer = int.Parse(Encoder().Match(path).Groups[1].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture);
        var cfg = YamlConfig.Read(In(path, "config.yaml"));
        using var encoder = WeightFile.Open(path);
        string name = Name("W_enc", layer), thresholds = Name("threshold", layer);
        var (dSae, dIn) = encoder.Matrix(name);
        var decoder = In(path, $"{Name("W_dec", layer)}.safetensors");
        var jump = encoder.Contains(thresholds);
        var config = PublishedConfig.Of(jump ? "jumprelu_transcoder" : "transcoder", dIn, dSae, encoder.DtypeOf(name), subtractBDec: false,
            ("model_name", cfg.GetStringOrNull("model_name")), ("hook_name", PublishedConfig.Block(layer, cfg.GetString("feature_input_hook"))),
            ("hook_name_out", PublishedConfig.Block(layer, cfg.GetString("feature_output_hook"))),
            ("model_from_pretrained_kwargs", new System.Text.Json.Nodes.JsonObject { ["fold_ln"] = false }));
        using (var rows = WeightFile.Open(decoder)) config["d_out"] = rows.ShapeOf(Name("W_dec", layer))[^1];
        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () => State(path, decoder, layer, jump),
            Notes = [Warning],
        };
    }

    /// <summary>Decoder rows [d_sae, layers, d_out], summed over the layers in double.</summary>
    /// <param name="weights">The file.</param>
    /// <param name="name">The tensor.</param>
    internal static NamedValues SummedOverLayers(WeightFile weights, string name)
    {
        if (weights.ShapeOf(name) is not [var features, var layers, var width])
            throw new InvalidFileException(weights.Path, $"tensor {name} is [{string.Join(", ", weights.ShapeOf(name))}], expected [d_sae, layers, d_model]");
        var values = weights.Floats(name);
        var sum = new float[features * width];
        for (var f = 0; f < features; f++)
        {
            for (var i = 0; i < width; i++)
            {
                double total = 0;
                for (var l = 0; l < layers; l++) total += values[((((long)f * layers) + l) * width) + i];
                sum[((long)f * width) + i] = (float)total;
            }
        }

        return new NamedValues("W_dec", [features, width], sum);
    }

    private static List<NamedValues> State(string path, string decoder, int layer, bool jump)
    {
        using var encoder = WeightFile.Open(path);
        using var rows = WeightFile.Open(decoder);
        List<NamedValues> state =
        [
            encoder.Read(Name("b_dec", layer), "b_dec"),
            encoder.Read(Name("b_enc", layer), "b_enc"),
            SummedOverLayers(rows, Name("W_dec", layer)),
            encoder.Read(Name("W_enc", layer), "W_enc", transposed: true),
        ];
        if (jump) state.Add(encoder.Read(Name("threshold", layer), "threshold"));
        return state;
    }

    private static string Name(string tensor, int layer) => string.Create(CultureInfo.InvariantCulture, $"{tensor}_{layer}");

    private static string In(string path, string file) => Path.Combine(Path.GetDirectoryName(Path.GetFullPath(path))!, file);

    [GeneratedRegex(@"W_enc_(\d+)\.safetensors$", RegexOptions.CultureInvariant)]
    private static partial Regex Encoder();
}
