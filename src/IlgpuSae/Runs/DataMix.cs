using System.Globalization;
using IlgpuSae.Activations;
using IlgpuSae.Datasets;

namespace IlgpuSae.Runs;

/// <summary>The data sets a setting names.</summary>
internal static class DataMix
{
    /// <summary>Opens them.</summary>
    /// <param name="paths">One path, or several with commas between them, each with its weight behind a colon.</param>
    /// <param name="data">How they are read.</param>
    /// <exception cref="InvalidInputException">A path cannot be read or a weight is no positive number.</exception>
    public static IReadOnlyList<DatasetPart> Open(string paths, DataConfig data)
    {
        var options = new DatasetOptions { Column = data.DatasetColumn, DocumentSeparator = data.DocumentSeparator, MaxMalformedFraction = data.MaxMalformedFraction };
        return [.. Parts(paths).Select(p => new DatasetPart(Dataset.Open(p.Path, options), p.Weight))];
    }

    private static IEnumerable<(string Path, double Weight)> Parts(string paths)
    {
        // A path may hold commas and colons itself.
        if (File.Exists(paths) || Directory.Exists(paths)) return [(paths, 1)];
        return paths.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(part =>
        {
            var colon = part.LastIndexOf(':');
            if (colon <= 0 || File.Exists(part) || Directory.Exists(part)) return (part, 1.0);
            var weight = part[(colon + 1)..];
            if (!double.TryParse(weight, NumberStyles.Float, CultureInfo.InvariantCulture, out var w)) return (part, 1.0); // a path that does not exist, said so when opened
            return w > 0 && double.IsFinite(w) ? (part[..colon], w) : throw new InvalidInputException($"{part}: the weight \"{weight}\" is not a positive number");
        });
    }
}
