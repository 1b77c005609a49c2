using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>Turns the files of a published SAE into one that runs, with what its release says beside them.</summary>
internal static class PretrainedLoader
{
    /// <summary>Reads settings and where the weights are.</summary>
    /// <param name="path">The files.</param>
    /// <param name="published">What the directory says; null: a path of the disk.</param>
    public static PublishedSae Describe(string path, PretrainedSae? published)
    {
        if (published is null) return SaeFormats.Default.Describe(path);
        var where = published.Path.Length == 0 ? published.Repository.Id : $"{published.Repository.Id}/{published.Path}";
        return SaeFormats.Default.Describe(path, new SaeHints
        {
            PublishedAs = where,
            NormScalingFactor = published.NormScalingFactor,
            Overrides = published.Overrides,
        }, published.Format.Key);
    }

    /// <summary>Loads it.</summary>
    public static Sae Load(string path, PretrainedSae? published, Device device) => SaeFormats.Load(Describe(path, published), device);
}
