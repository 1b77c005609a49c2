using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Testing;

namespace IlgpuSae.Tests.Models;

/// <summary>A golden model's checkpoint in memory, to be changed and written elsewhere.</summary>
internal sealed class Checkpoint
{
    private Checkpoint(JsonObject config) => Config = config;

    public JsonObject Config { get; }

    public SortedDictionary<string, (long[] Shape, float[] Values)> Tensors { get; } = new(StringComparer.Ordinal);

    public static Checkpoint Of(string golden)
    {
        var folder = Golden.Open("lm", golden).PathOf("model");
        var c = new Checkpoint(JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "config.json")))!.AsObject());
        using var f = SafetensorsFile.Open(Path.Combine(folder, "model.safetensors"));
        foreach (var e in f.Tensors) c.Tensors.Add(e.Name, ([.. e.Shape], f.ReadFloat32(e.Name)));
        return c;
    }

    /// <summary>A checkpoint without tensors.</summary>
    public static Checkpoint New(JsonObject config) => new(config);

    /// <summary>Adds a tensor whose values, of size about 0.3, depend on its name alone.</summary>
    public Checkpoint Random(string name, params long[] shape)
    {
        var seed = name.Aggregate(17, (h, c) => unchecked((h * 31) + c));
        var random = new Random(seed);
        return Set(name, shape, _ => (float)((random.NextDouble() * 1.4) - 0.6));
    }

    /// <summary>Adds NAME.weight and NAME.bias of a LayerNorm.</summary>
    public Checkpoint Norm(string name, long width) => Random(name + ".weight", width).Random(name + ".bias", width);

    /// <summary>Adds NAME.weight [out, in] and NAME.bias.</summary>
    public Checkpoint Linear(string name, long outs, long ins) => Random(name + ".weight", outs, ins).Random(name + ".bias", outs);

    /// <summary>Renames every tensor.</summary>
    public Checkpoint Rename(Func<string, string> name)
    {
        var all = Tensors.ToList();
        Tensors.Clear();
        foreach (var (n, t) in all) Tensors.Add(name(n), t);
        return this;
    }

    /// <summary>Adds or replaces a tensor.</summary>
    public Checkpoint Set(string name, long[] shape, Func<int, float> value)
    {
        Tensors[name] = (shape, Enumerable.Range(0, (int)shape.Aggregate(1L, (a, b) => a * b)).Select(value).ToArray());
        return this;
    }

    /// <summary>Writes config.json and the weights in one file or in shards.</summary>
    public string Save(TempFolder folder, SafetensorsType type = SafetensorsType.F32, int shards = 1)
    {
        folder.Write("config.json", Config.ToJsonString());
        var map = new JsonObject();
        var writers = Enumerable.Range(0, shards).Select(_ => new SafetensorsWriter()).ToArray();
        var i = 0;
        foreach (var (name, (shape, values)) in Tensors)
        {
            var shard = i++ % shards;
            map[name] = ShardName(shard, shards);
            Add(writers[shard], name, type, shape, values);
        }

        for (var s = 0; s < shards; s++) writers[s].Save(folder[ShardName(s, shards)]);
        if (shards > 1) folder.Write("model.safetensors.index.json", new JsonObject { ["metadata"] = new JsonObject(), ["weight_map"] = map }.ToJsonString());
        return folder.Path;
    }

    private static string ShardName(int shard, int shards) => shards == 1 ? "model.safetensors" : $"model-{shard + 1:D5}-of-{shards:D5}.safetensors";

    private static void Add(SafetensorsWriter writer, string name, SafetensorsType type, long[] shape, float[] values)
    {
        switch (type)
        {
            case SafetensorsType.F32: writer.Add(name, shape, values); break;
            case SafetensorsType.F16: writer.Add(name, shape, values.Select(v => (Half)v).ToArray()); break;
            case SafetensorsType.BF16:
                writer.Add(name, type, shape, stream =>
                {
                    foreach (var v in values) stream.Write(BitConverter.GetBytes((ushort)(BitConverter.SingleToUInt32Bits(v) >> 16)));
                });
                break;
            default: writer.Add(name, shape, values.Select(v => (long)v).ToArray()); break;
        }
    }
}
