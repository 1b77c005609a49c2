using System.Buffers;
using IlgpuSae.Files;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Turns the tensors of a checkpoint into a model's parameters, as the rules of its family say.</summary>
internal sealed class WeightLoader
{
    private const int ChunkElements = 1 << 22;
    private readonly ISafetensors _files;
    private readonly ModelFamily _family;
    private readonly ModelSpec _spec;

    internal WeightLoader(ISafetensors files, ModelFamily family, ModelSpec spec)
    {
        _files = files;
        _family = family;
        _spec = spec;
    }

    /// <summary>
    /// Loads everything. <paramref name="keepStoredType"/>: matrices of blocks and an untied unembedding stay in F16 or
    /// BF16 if the checkpoint has them so; all else becomes F32.
    /// </summary>
    internal Dictionary<string, Tensor> Load(Device device, bool keepStoredType, bool ignoreUnknown)
    {
        var rules = Rules();
        var sources = Resolve(rules);
        if (!ignoreUnknown) RefuseUnknown(sources);
        foreach (var rule in rules) Check(rule, sources[rule.Source]);
        var loaded = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        try
        {
            foreach (var rule in rules)
            {
                var source = sources[rule.Source];
                var type = keepStoredType && MayStay(rule) ? StoredType(source) : DType.F32;
                var tensor = new Tensor(device, rule.TargetShape, type);
                loaded.Add(rule.Target, tensor);
                if (rule.Transposed) ReadTransposed(rule, source, tensor);
                else ReadRows(rule, source, tensor);
            }
        }
        catch
        {
            foreach (var t in loaded.Values) t.Dispose();
            throw;
        }

        return loaded;
    }

    /// <summary>The family's rules, checked against the model's list of parameters: a mismatch is the family's defect.</summary>
    private List<WeightRule> Rules()
    {
        var parameters = _spec.Parameters().ToDictionary(p => p.Name, p => p.Shape, StringComparer.Ordinal);
        var rules = _family.Weights(_spec).ToList();
        var name = _family.GetType().Name;
        foreach (var r in rules)
        {
            if (!parameters.Remove(r.Target, out var shape))
                throw new InvalidInputException($"model family {name}: a rule makes \"{r.Target}\", which {_spec.Architecture} has not or was made before");
            if (r.TargetShape != shape)
                throw new InvalidInputException($"model family {name}: its rule makes \"{r.Target}\" {r.TargetShape}, the model needs {shape}");
        }

        if (parameters.Count > 0)
            throw new InvalidInputException($"model family {name}: no rule makes \"{parameters.Keys.First()}\" and {parameters.Count - 1} more parameters");
        return rules;
    }

    /// <summary>Finds each rule's tensor, with or without the optional prefix; all that are missing are reported at once.</summary>
    private Dictionary<string, string> Resolve(List<WeightRule> rules)
    {
        var found = new Dictionary<string, string>(StringComparer.Ordinal);
        var missing = new List<string>();
        foreach (var source in rules.Select(r => r.Source).Distinct())
        {
            var prefix = _family.OptionalPrefixes.FirstOrDefault(p => _files.Contains(p + source));
            if (prefix is not null) found.Add(source, prefix + source);
            else if (_files.Contains(source)) found.Add(source, source);
            else missing.Add(source);
        }

        if (missing.Count > 0)
        {
            throw new InvalidFileException(_files.Path, $"its weights lack {Tensors(missing.Count)} of {_spec.Architecture}: {List(missing)}; "
                + $"they have {_files.Names.Count}, such as {List(_files.Names.Order(StringComparer.Ordinal), 3)}");
        }

        return found;
    }

    private void RefuseUnknown(Dictionary<string, string> sources)
    {
        var used = sources.Values.ToHashSet(StringComparer.Ordinal);
        var unknown = _files.Names.Where(n => !used.Contains(n) && !_family.Ignores(WithoutPrefix(n))).Order(StringComparer.Ordinal).ToList();
        if (unknown.Count == 0) return;
        throw new InvalidFileException(_files.Path, $"its weights have {Tensors(unknown.Count)} that {_spec.Architecture} does not: {List(unknown)}; "
            + "is config.json of another model? To load anyway, ask to ignore unknown tensors");
    }

    private string WithoutPrefix(string name)
    {
        var prefix = _family.OptionalPrefixes.FirstOrDefault(p => name.StartsWith(p, StringComparison.Ordinal));
        return prefix is null ? name : name[prefix.Length..];
    }

    private void Check(WeightRule rule, string source)
    {
        var entry = _files.Entry(source);
        var path = _files.FileOf(source).Path;
        if (entry.Type is not (SafetensorsType.F32 or SafetensorsType.F16 or SafetensorsType.BF16 or SafetensorsType.F64))
            throw new InvalidFileException(path, $"tensor \"{source}\" has dtype {entry.Type}, expected F32, F16, BF16 or F64");
        if (!entry.Shape.SequenceEqual(rule.SourceShape.Dims.ToArray().Select(d => (long)d)))
        {
            throw new InvalidFileException(path, $"tensor \"{source}\" is [{string.Join(", ", entry.Shape)}], "
                + $"but config.json of this {_spec.Architecture} makes it {rule.SourceShape}");
        }
    }

    /// <summary>Only what enters matrix products alone may stay in 16 bits; embeddings are gathered, vectors are small.</summary>
    private static bool MayStay(WeightRule rule) =>
        !rule.Transposed && rule.TargetShape.Rank == 2 && rule.Target is not ("embed.W_E" or "pos_embed.W_pos");

    private DType StoredType(string source) => _files.Entry(source).Type switch
    {
        SafetensorsType.F16 => DType.F16,
        SafetensorsType.BF16 => DType.BF16,
        _ => DType.F32,
    };

    /// <summary>Rows as they are, a few megabytes at a time, so that tensors of any size load without a copy of their size.</summary>
    private void ReadRows(WeightRule rule, string source, Tensor target)
    {
        var file = _files.FileOf(source);
        var rows = rule.SourceShape[0];
        var width = rows == 0 ? 0 : (int)(rule.SourceShape.Count / rows);
        var size = target.Type.Size();
        var step = Math.Max(1, ChunkElements / Math.Max(1, width));
        var bytes = ArrayPool<byte>.Shared.Rent(Math.Min(step, rows) * width * 4);
        try
        {
            long done = 0;
            foreach (var (start, length) in Runs(rule, rows))
            {
                for (var r = start; r < start + length; r += step)
                {
                    var n = Math.Min(step, start + length - r) * width;
                    var chunk = bytes.AsSpan(0, n * size);
                    if (target.Type == DType.F32) file.ReadFloat32(source, System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(chunk), (long)r * width);
                    else file.ReadBytes(source, (long)r * width * size, chunk);
                    target.CopyFromBytes(chunk, done);
                    done += chunk.Length;
                }
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bytes);
        }
    }

    private static IEnumerable<(int Start, int Length)> Runs(WeightRule rule, int rows)
    {
        if (rule.Rows is not { } runs) return [(0, rows)];
        return Enumerable.Range(0, runs.Count).Select(i => (runs.Start + (i * runs.Stride), runs.Length));
    }

    private void ReadTransposed(WeightRule rule, string source, Tensor target)
    {
        int inputs = rule.SourceShape[0], outputs = rule.SourceShape[1];
        var stored = _files.ReadFloat32(source);
        var values = new float[target.Count];
        var to = 0;
        foreach (var (start, length) in Runs(rule, outputs))
        {
            for (var o = start; o < start + length; o++)
                for (var i = 0; i < inputs; i++) values[to++] = stored[((long)i * outputs) + o];
        }

        target.CopyFrom<float>(values);
    }

    private static string Tensors(int n) => n == 1 ? "a tensor" : $"{n} tensors";

    private static string List(IEnumerable<string> names, int most = 5)
    {
        var all = names.ToList();
        return string.Join(", ", all.Take(most).Select(n => $"\"{n}\"")) + (all.Count > most ? ", ..." : "");
    }
}
