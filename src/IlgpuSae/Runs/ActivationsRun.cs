using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Models;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>
/// Runs a model over a corpus once and writes chosen hooks to a safetensors file: tensors under the hooks' names,
/// [contexts, positions, ...], <c>logits</c> [contexts, positions, d_vocab], and the <c>tokens</c> themselves.
/// </summary>
/// <param name="device">Where to compute.</param>
public sealed class ActivationsRun(Device device)
{
    /// <summary>Opens the hub, should models or SAEs be named that are not on the disk; null: as the environment says.</summary>
    public Func<HubClient>? Hub { get; init; }

    /// <summary>Whether logits are written.</summary>
    public bool Logits { get; init; } = true;

    /// <summary>How the model is loaded.</summary>
    public ModelLoadOptions Load { get; init; } = new();

    /// <summary>Told contexts done.</summary>
    public Action<long>? Progress { get; init; }

    /// <summary>Told what the user ought to know about the data.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>Runs it.</summary>
    /// <param name="data">Model, and <c>text</c> or <c>tokens</c>.</param>
    /// <param name="hooks">Names with commas between them, <c>*</c> for anything; <c>all</c>.</param>
    /// <param name="outputPath">File to write.</param>
    /// <param name="cancellation">Stops between two batches; nothing is written.</param>
    /// <returns>Name and shape of every tensor written.</returns>
    /// <exception cref="InvalidInputException">A file cannot be used, a hook does not exist, or the result is too large for one file.</exception>
    public IReadOnlyList<(string Name, IReadOnlyList<long> Shape)> Execute(
        DataConfig data, string hooks, string outputPath, CancellationToken cancellation = default)
    {
        if (data.ModelName is null) throw new InvalidInputException("model_name: missing; give the model's folder");
        (data with { HookName = hooks }).Validate();
        using var language = LanguageModel.Load(data.ModelName, device, Load, Hub, cancellation);
        var points = language.Model.Hooks.Select(hooks);
        using var source = language.OpenTokens(data, data.Contexts);
        var told = source.Notes;
        foreach (var note in told) Note?.Invoke(note);
        var parts = new Dictionary<string, Collected>(StringComparer.Ordinal);
        var tokens = new List<int>();
        while (source.NextBatch(data.StoreBatchSizePrompts, wrap: false) is { Length: > 0 } ids)
        {
            cancellation.ThrowIfCancellationRequested();
            using var scope = new TensorScope(device);
            var batch = scope.From<int>(ids, [ids.Length / source.ContextSize, source.ContextSize]);
            ActivationCache cache;
            if (Logits)
            {
                (var logits, cache) = language.Model.RunWithCache(scope, batch, points.Contains);
                Collect(parts, "logits", logits);
            }
            else
            {
                cache = language.Model.Activations(scope, batch, hooks);
            }

            foreach (var (name, tensor) in cache.All) Collect(parts, name, tensor);
            tokens.AddRange(ids);
            Progress?.Invoke(source.Served);
        }

        foreach (var note in source.Notes.Except(told)) Note?.Invoke(note);
        var writer = new SafetensorsWriter();
        foreach (var (name, part) in parts) writer.Add(name, SafetensorsType.F32, part.Shape, part.Write);
        writer.Add("tokens", [tokens.Count / source.ContextSize, source.ContextSize], tokens.ToArray());
        writer.Save(outputPath);
        return [.. parts.Select(p => (p.Key, p.Value.Shape))];
    }

    private static void Collect(Dictionary<string, Collected> parts, string name, Tensor tensor)
    {
        if (!parts.TryGetValue(name, out var part)) parts[name] = part = new Collected(tensor.Shape);
        part.Add(tensor);
    }

    /// <summary>One hook's activations, batch after batch.</summary>
    private sealed class Collected(Shape first)
    {
        private readonly List<float[]> _batches = [];
        private long _contexts;

        public IReadOnlyList<long> Shape => [_contexts, .. first.Dims[1..].ToArray().Select(d => (long)d)];

        public void Add(Tensor tensor)
        {
            _batches.Add(tensor.ToArray<float>());
            _contexts += tensor.Shape[0];
        }

        public void Write(Stream stream)
        {
            foreach (var batch in _batches) stream.Write(System.Runtime.InteropServices.MemoryMarshal.AsBytes(batch.AsSpan()));
        }
    }
}
