using System.Buffers;
using System.Globalization;
using System.Runtime.InteropServices;
using IlgpuSae.Files;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Turns the tensors of a checkpoint into a model's parameters, as the rules of its family say.</summary>
internal sealed class WeightLoader
{
    private const int ChunkElements = 1 << 22;

    /// <summary>Bytes behind a tensor that vector loads may touch.</summary>
    private const int Slack = 64;

    private readonly ISafetensors _files;
    private readonly ModelFamily _family;
    private readonly ModelSpec _spec;
    private readonly ModelLoadOptions _options;
    private readonly WeightStorage _storage;

    internal WeightLoader(ISafetensors files, ModelFamily family, ModelSpec spec, ModelLoadOptions options)
    {
        _files = files;
        _family = family;
        _spec = spec;
        _options = options;
        // Processing computes with the weights.
        _storage = options.Processing.Any ? WeightStorage.F32 : options.Storage;
    }

    /// <summary>One parameter: where it comes from and how it is to lie in memory.</summary>
    private sealed record Placement(WeightRule Rule, string Source, DType Type, bool Mapped)
    {
        internal long Bytes => Mapped ? 0 : Rule.TargetShape.Count * Type.Size();
    }

    /// <summary>
    /// Loads everything. Matrices lie in the type asked for; the tables of positions and all vectors become F32. What does not fit the
    /// device is refused before anything is read.
    /// </summary>
    internal Dictionary<string, Tensor> Load(Device device)
    {
        var rules = Rules();
        var sources = Resolve(rules);
        if (!_options.IgnoreUnknownTensors) RefuseUnknown(sources);
        foreach (var rule in rules) Check(rule, sources[rule.Source]);
        var map = _options.MapFiles && device is CpuDevice && !_options.Processing.Any;
        var plan = rules.Select(rule => Place(rule, sources[rule.Source], map)).ToList();
        RefuseTooLarge(plan, device);
        var loaded = new Dictionary<string, Tensor>(StringComparer.Ordinal);
        var mapped = new Dictionary<string, MappedFile>(StringComparer.Ordinal);
        try
        {
            foreach (var p in plan)
            {
                if (p.Mapped && MappedTensor((CpuDevice)device, p, mapped) is { } inFile)
                {
                    loaded.Add(p.Rule.Target, inFile);
                    continue;
                }

                var tensor = new Tensor(device, p.Rule.TargetShape, p.Type);
                loaded.Add(p.Rule.Target, tensor);
                if (p.Rule.Transposed) ReadTransposed(p, tensor);
                else ReadRows(p, tensor);
            }
        }
        catch
        {
            foreach (var t in loaded.Values) t.Dispose();
            throw;
        }
        finally
        {
            foreach (var file in mapped.Values) file.Release();
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

    /// <summary>Finds each rule's tensor, with or without an optional prefix; all that are missing are reported at once.</summary>
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
            throw new InvalidFileException(_files.Path, $"its weights lack {Tensors(missing.Count)} of {_spec.Architecture}: {List(missing, int.MaxValue)}; "
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

    private Placement Place(WeightRule rule, string source, bool map)
    {
        var type = TypeOf(rule, source, _storage);
        // One run of rows lies in the file as it does in memory.
        var inFile = map && StoredType(source) == type && rule.TargetShape.Rank == 2 && !rule.Transposed && (rule.Rows is null || rule.Rows.Count == 1);
        return new Placement(rule, source, type, inFile);
    }

    /// <summary>Only what enters matrix products, or is gathered by token, may be in 16 bits; vectors are small.</summary>
    private DType TypeOf(WeightRule rule, string source, WeightStorage storage) => rule.TargetShape.Rank != 2 || rule.Target == "pos_embed.W_pos" ? DType.F32 : storage switch
    {
        WeightStorage.AsStored => StoredType(source) ?? DType.F32,
        WeightStorage.F16 => DType.F16,
        WeightStorage.BF16 => DType.BF16,
        _ => DType.F32,
    };

    /// <summary>The checkpoint's type as tensors have it; null for F64, which they have not.</summary>
    private DType? StoredType(string source) => _files.Entry(source).Type switch
    {
        SafetensorsType.F16 => DType.F16,
        SafetensorsType.BF16 => DType.BF16,
        SafetensorsType.F32 => DType.F32,
        _ => null,
    };

    private void RefuseTooLarge(List<Placement> plan, Device device)
    {
        if (device.AvailableBytes is not { } room) return;
        var needed = plan.Sum(p => p.Bytes);
        if (needed <= room) return;
        var narrow = plan.Sum(p => p.Rule.TargetShape.Count * TypeOf(p.Rule, p.Source, WeightStorage.BF16).Size());
        var advice = new List<string>();
        if (narrow < needed && !_options.Processing.Any) advice.Add($"keep it in bfloat16, which takes {Size(narrow)}");
        if (device is CpuDevice && !_options.MapFiles && !_options.Processing.Any) advice.Add("map its files instead of loading them");
        advice.Add("use a device with more memory");
        throw new InvalidInputException(string.Create(CultureInfo.InvariantCulture,
            $"{_files.Path}: the weights of this {_spec.Architecture} take {Size(needed)} ({plan.Sum(p => p.Rule.TargetShape.Count):N0} numbers), but {device.Name} has {Size(room)} free; ")
            + string.Join(", or ", advice));
    }

    /// <summary>The tensor in its file's memory; null where the file ends so near behind it that vectors would read past it, or where it is not aligned.</summary>
    private Tensor? MappedTensor(CpuDevice device, Placement p, Dictionary<string, MappedFile> mapped)
    {
        var file = _files.FileOf(p.Source);
        if (!mapped.TryGetValue(file.Path, out var map)) mapped[file.Path] = map = MappedFile.Open(file.Path);
        var rowBytes = (long)p.Rule.SourceShape[1] * p.Type.Size();
        var start = file.PositionOf(p.Source) + ((p.Rule.Rows?.Start ?? 0) * rowBytes);
        var bytes = p.Rule.TargetShape.Count * p.Type.Size();
        if (start + bytes > map.Length || start + bytes + Slack > map.Readable || (map.Address + start) % p.Type.Size() != 0) return null;
        map.AddReference();
        return Tensor.OverHostMemory(device, (nint)(map.Address + start), p.Rule.TargetShape, p.Type, map.Release);
    }

    /// <summary>Rows as they are, a few megabytes at a time, so that tensors of any size load without a copy of their size.</summary>
    private void ReadRows(Placement p, Tensor target)
    {
        var file = _files.FileOf(p.Source);
        var rows = p.Rule.SourceShape[0];
        var width = rows == 0 ? 0 : (int)(p.Rule.SourceShape.Count / rows);
        var size = p.Type.Size();
        var raw = StoredType(p.Source) == p.Type;
        var step = Math.Max(1, ChunkElements / Math.Max(1, width));
        var bytes = ArrayPool<byte>.Shared.Rent(Math.Min(step, rows) * width * 4);
        try
        {
            long done = 0;
            foreach (var (start, length) in Runs(p.Rule, rows))
            {
                for (var r = start; r < start + length; r += step)
                {
                    var n = Math.Min(step, start + length - r) * width;
                    var chunk = bytes.AsSpan(0, n * size);
                    if (raw)
                    {
                        file.ReadBytes(p.Source, (long)r * width * size, chunk);
                    }
                    else
                    {
                        var values = MemoryMarshal.Cast<byte, float>(bytes.AsSpan(0, n * 4));
                        file.ReadFloat32(p.Source, values, (long)r * width);
                        if (p.Type != DType.F32) Narrow(p, values, MemoryMarshal.Cast<byte, ushort>(chunk));
                    }

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

    private void ReadTransposed(Placement p, Tensor target)
    {
        int inputs = p.Rule.SourceShape[0], outputs = p.Rule.SourceShape[1];
        var stored = _files.ReadFloat32(p.Source);
        var values = new float[target.Count];
        var to = 0;
        foreach (var (start, length) in Runs(p.Rule, outputs))
        {
            for (var o = start; o < start + length; o++)
                for (var i = 0; i < inputs; i++) values[to++] = stored[((long)i * outputs) + o];
        }

        if (p.Type == DType.F32)
        {
            target.CopyFrom<float>(values);
            return;
        }

        var halves = new ushort[values.Length];
        Narrow(p, values, halves);
        target.CopyFromBytes(MemoryMarshal.AsBytes(halves.AsSpan()));
    }

    /// <summary>Rounds to the nearest number of 16 bits, ties to even. In place is allowed.</summary>
    private void Narrow(Placement p, ReadOnlySpan<float> values, Span<ushort> halves)
    {
        for (var i = 0; i < values.Length; i++)
        {
            var v = values[i];
            if (p.Type == DType.BF16)
            {
                var bits = BitConverter.SingleToUInt32Bits(v);
                halves[i] = (ushort)(float.IsNaN(v) ? (bits >> 16) | 0x40 : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
                continue;
            }

            var half = (Half)v;
            if (Half.IsInfinity(half) && float.IsFinite(v))
                throw new InvalidFileException(_files.FileOf(p.Source).Path, $"tensor \"{p.Source}\" holds {v}, which F16 cannot hold; keep the model in bfloat16 or float32");
            halves[i] = BitConverter.HalfToUInt16Bits(half);
        }
    }

    private static string Size(long bytes) => bytes >= 1 << 30
        ? string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1 << 30):0.0} GiB")
        : string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1 << 20):0.0} MiB");

    private static string Tensors(int n) => n == 1 ? "a tensor" : $"{n} tensors";

    private static string List(IEnumerable<string> names, int most = 5)
    {
        var all = names.ToList();
        return string.Join(", ", all.Take(most).Select(n => $"\"{n}\"")) + (all.Count > most ? ", ..." : "");
    }
}
