using System.Globalization;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using IlgpuSae.Hub;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>
/// Expands a release of the directory. A release has groups; a group has templates for id, path, hook and Neuronpedia id
/// and the layers they are written out for: <c>{layer}</c>, <c>{width}</c>, <c>{l0}</c>, and <c>{value}</c> for what a
/// list <c>values</c> has. Numbers may be one for all or a list, one a layer.
/// </summary>
internal sealed partial class ReleaseReader(
    string name, JsonObject release, IReadOnlyDictionary<string, PretrainedFormat> formats, IReadOnlyDictionary<string, PretrainedRelease> before)
{
    /// <summary>The canonical SAE of a layer and width is the one whose L0 is nearest to this.</summary>
    private const double CanonicalL0 = 100;

    private readonly string _repository = (string)release["repository"]!;
    private readonly string _model = (string)release["model"]!;
    private readonly string _format = (string?)release["format"] ?? "saelens";

    public PretrainedRelease Read()
    {
        var saes = new List<PretrainedSae>();
        if ((string?)release["canonical_of"] is { } full) saes.AddRange(Canonical(before[full]));
        foreach (var group in release["saes"] as JsonArray ?? []) saes.AddRange(Expand((JsonObject)group!));
        return new PretrainedRelease(name, _repository, _model, _format, saes, (string?)release["open"]);
    }

    /// <summary>An SAE of a release that names its SAEs by a pattern; null if the id does not have its form.</summary>
    public PretrainedSae? Open(string id)
    {
        if ((string?)release["open"] is not { } pattern) return null;
        var form = Regex.Escape(pattern).Replace(@"\{layer}", @"(?<layer>\d+)", StringComparison.Ordinal)
            .Replace(@"\{width}", @"(?<width>\d+[km])", StringComparison.Ordinal).Replace(@"\{l0}", @"(?<l0>\d+)", StringComparison.Ordinal);
        if (Regex.Match(id, $"^{form}$") is not { Success: true } m) return null;
        return New(new JsonObject { ["id"] = id, ["hook"] = release["hook"]?.DeepClone() }, id, id, m.Groups["layer"].Value, 0, null, null)
            with
        { L0 = double.Parse(m.Groups["l0"].Value, CultureInfo.InvariantCulture) };
    }

    /// <summary>One SAE a layer and width, named canonical: the one nearest to L0 100.</summary>
    private IEnumerable<PretrainedSae> Canonical(PretrainedRelease full) => full.Saes
        .Where(s => s.L0 is not null)
        .GroupBy(s => s.Id[..s.Id.LastIndexOf('/')])
        .Select(g =>
        {
            var chosen = g.MinBy(s => Math.Abs(s.L0!.Value - CanonicalL0))!;
            var (layer, width) = (LayerOf().Match(g.Key).Groups[1].Value, g.Key[(g.Key.IndexOf("width_", StringComparison.Ordinal) + 6)..]);
            var page = (string?)release["neuronpedia"];
            var filled = page is null ? null : Fill(page, layer, width, null, null);
            return chosen with { Release = name, Id = g.Key + "/canonical", NeuronpediaId = filled, Overrides = filled is null ? [] : new JsonObject { ["neuronpedia_id"] = filled } };
        });

    private IEnumerable<PretrainedSae> Expand(JsonObject group)
    {
        var id = (string)group["id"]!;
        var path = (string?)group["path"] ?? id;
        var layers = Range((string?)group["layers"]);
        for (var i = 0; i < layers.Count; i++)
        {
            var layer = layers[i];
            if (group["l0s"] is JsonArray l0s)
            {
                foreach (var l0 in ((string)l0s[i]!).Split(' ').Select(x => double.Parse(x, CultureInfo.InvariantCulture)))
                    yield return New(group, id, path, layer, i, l0.ToString(CultureInfo.InvariantCulture), null) with { L0 = l0 };
            }
            else if (group["values"] is JsonArray values)
            {
                for (var v = 0; v < values.Count; v++) yield return New(group, id, path, layer, v, null, values[v]!.ToString());
            }
            else
            {
                yield return New(group, id, path, layer, i, null, null);
            }
        }
    }

    private PretrainedSae New(JsonObject group, string id, string path, string layer, int i, string? l0, string? value)
    {
        var width = (string?)group["width"];
        string Text(string template) => Fill(template, layer, width, l0, value);
        if (group["paths"] is JsonArray paths) path = (string)paths[i]!;
        var overrides = (JsonObject?)release["overrides"]?.DeepClone() ?? [];
        var page = group["neuronpedia"] is JsonArray pages ? (string?)pages[i] : (string?)group["neuronpedia"];
        if (page is not null) overrides["neuronpedia_id"] = page = Text(page);
        var filled = Text(id);
        return new PretrainedSae
        {
            Release = name,
            Id = filled,
            Repository = new HubRepo(_repository),
            Path = Text(path),
            Format = formats[_format],
            Model = _model,
            HookName = (string?)(group["hook"] ?? release["hook"]) is { } hook ? Text(hook) : HookOf().Match(filled) is { Success: true } m ? m.Value : null,
            NormScalingFactor = Number(group["norm_scaling_factor"], i),
            L0 = Number(group["l0"], i),
            VarianceExplained = Number(group["variance_explained"], i),
            NeuronpediaId = page,
            Overrides = overrides,
        };
    }

    private static string Fill(string template, string layer, string? width, string? l0, string? value) => template
        .Replace("{layer}", layer, StringComparison.Ordinal)
        .Replace("{width}", width, StringComparison.Ordinal)
        .Replace("{l0}", l0, StringComparison.Ordinal)
        .Replace("{value}", value, StringComparison.Ordinal);

    private static double? Number(JsonNode? node, int i) => node is JsonArray all ? (double?)all[i] : (double?)node;

    /// <summary><c>0-3,7</c> is 0, 1, 2, 3, 7; nothing is one empty layer.</summary>
    private static List<string> Range(string? text)
    {
        if (text is null) return [""];
        var layers = new List<string>();
        foreach (var part in text.Split(','))
        {
            var ends = part.Split('-');
            var (first, last) = (int.Parse(ends[0], CultureInfo.InvariantCulture), int.Parse(ends[^1], CultureInfo.InvariantCulture));
            for (var layer = first; layer <= last; layer++) layers.Add(layer.ToString(CultureInfo.InvariantCulture));
        }

        return layers;
    }

    /// <summary>Ids that are hooks, or begin with one.</summary>
    [GeneratedRegex(@"^blocks\.\d+\.(attn\.|mlp\.|ln\d\.)?hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out|z|normalized|in|out)")]
    private static partial Regex HookOf();

    [GeneratedRegex(@"layer_(\d+)")]
    private static partial Regex LayerOf();
}
