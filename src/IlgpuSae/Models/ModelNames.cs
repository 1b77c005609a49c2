using System.Globalization;
using IlgpuSae.Files;

namespace IlgpuSae.Models;

/// <summary>A language model one can ask for by name.</summary>
/// <param name="Name">As TransformerLens spells it first: <c>gpt2-small</c>, <c>pythia-70m-deduped</c>.</param>
/// <param name="HubId">The repository on the Hugging Face hub: <c>EleutherAI/pythia-70m-deduped</c>.</param>
/// <param name="Architecture">The Hugging Face architecture, by which its <see cref="ModelFamily"/> is found.</param>
/// <param name="Parameters">Number of parameters, an embedding that is also the unembedding counted once.</param>
/// <param name="Layers">Number of blocks.</param>
/// <param name="DModel">Width of the residual stream.</param>
/// <param name="Heads">Number of query heads.</param>
/// <param name="OtherNames">Further names TransformerLens knows it under.</param>
public sealed record ModelName(
    string Name, string HubId, string Architecture, long Parameters, int Layers, int DModel, int Heads, IReadOnlyList<string> OtherNames);

/// <summary>
/// The names TransformerLens gives to language models (its supported_models.py, as far as the families here go), with the
/// hub's names and sizes. A lookup touches neither network nor disk. Names are found whatever their case.
/// </summary>
public static class ModelNames
{
    private static readonly Dictionary<string, ModelName> ByName = Index();

    /// <summary>Every model, family by family.</summary>
    public static IReadOnlyList<ModelName> All { get; } = [.. ByName.Values.Distinct()];

    /// <summary>The model of a name, of another of its names, or of a hub id.</summary>
    /// <param name="name">Such as <c>gpt2-small</c>, <c>neo</c> or <c>google/gemma-2b</c>.</param>
    /// <returns>null if there is none.</returns>
    public static ModelName? Find(string name) => ByName.GetValueOrDefault(name);

    /// <summary>The hub's id of a model.</summary>
    /// <param name="name">As for <see cref="Find"/>.</param>
    /// <exception cref="InvalidInputException">The name is not known; the message suggests near ones.</exception>
    public static string HubIdOf(string name) => Find(name)?.HubId
        ?? throw new InvalidInputException($"model {Say.Quote(name)} is not known; near: {Say.Some([.. All.Select(m => m.Name)], name, 3)}; "
            + "or give a folder, or a hub id such as EleutherAI/pythia-70m-deduped");

    private static Dictionary<string, ModelName> Index()
    {
        var index = new Dictionary<string, ModelName>(StringComparer.OrdinalIgnoreCase);
        using var stream = typeof(ModelNames).Assembly.GetManifestResourceStream("ModelNames.txt")
            ?? throw new IlgpuSaeException("the table of model names is missing from the assembly");
        using var reader = new StreamReader(stream);
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith('#')) continue;
            var f = line.Split('\t');
            var c = CultureInfo.InvariantCulture;
            var model = new ModelName(f[0], f[1], f[2], long.Parse(f[3], c), int.Parse(f[4], c), int.Parse(f[5], c), int.Parse(f[6], c),
                f.Length > 7 ? f[7].Split(' ') : []);
            foreach (var name in model.OtherNames.Prepend(model.HubId).Prepend(model.Name)) index.TryAdd(name, model);
        }

        return index;
    }
}
