using IlgpuSae.Files;

namespace IlgpuSae.Saes.Formats;

/// <summary>
/// The attention SAEs of Connor Kissane and Robert Krzyzanowski for GPT-2 small: <c>NAME.pt</c>, a state dictionary under SAELens'
/// names, and <c>NAME_cfg.json</c>. Standard SAEs on all heads of hook_z together.
/// </summary>
[SaeFormat("connor_rob_hook_z", "Attention SAEs of Kissane and Krzyzanowski: NAME.pt, NAME_cfg.json")]
public sealed class HookZPickle : SaeFormat
{
    private static string ConfigOf(string path) => Path.ChangeExtension(path, null) + "_cfg.json";

    /// <inheritdoc/>
    public override bool Recognises(string path) => path.EndsWith(".pt", StringComparison.Ordinal) && File.Exists(path) && File.Exists(ConfigOf(path));

    /// <inheritdoc/>
    public override PublishedSae Read(string path, SaeHints hints)
    {
        var cfg = JsonConfig.Read(ConfigOf(path));
        using var weights = WeightFile.Open(path);
        var (dIn, dSae) = weights.Matrix("W_enc");
        foreach (var (key, found) in new[] { ("act_size", dIn), ("dict_size", dSae) })
            if (cfg.GetInt(key) != found) throw cfg.Wrong(key, $"is {cfg.GetInt(key)}, but tensor W_enc has {found}");
        var config = PublishedConfig.Of("standard", dIn, dSae, weights.DtypeOf("W_enc"), subtractBDec: true,
            ("model_name", "gpt2-small"), ("hook_name", cfg.GetString("act_name")), ("context_size", 128), ("prepend_bos", true), ("dataset_path", "Skylion007/openwebtext"));
        return new PublishedSae
        {
            Path = path,
            Config = config,
            ReadState = () =>
            {
                using var again = WeightFile.Open(path);
                return [.. new[] { "b_dec", "b_enc", "W_dec", "W_enc" }.Select(n => again.Read(n, n))];
            },
        };
    }
}
