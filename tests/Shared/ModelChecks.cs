using IlgpuSae.Models;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Testing;

/// <summary>Checks of whole models that run on any device.</summary>
internal static class ModelChecks
{
    /// <summary>
    /// One forward pass of a golden model: logits and every hook, in value and shape. A slow device may do with the
    /// first rows of the batch.
    /// </summary>
    public static void EveryHook(Golden golden, Device device, ModelFamilies? families = null, int maxRows = int.MaxValue)
    {
        using var model = HookedTransformer.Load(golden.PathOf("model"), device, new ModelLoadOptions { Families = families ?? ModelFamilies.Builtin });
        using var scope = new TensorScope(device);
        var expected = golden.Floats("expected.safetensors");
        var whole = golden.Rows("inputs.safetensors", "tokens");
        var rows = whole.Take(maxRows).ToList();
        var tokens = HookedTransformer.Tokens(scope, rows);
        var (logits, cache) = model.RunWithCache(scope, tokens);
        golden.Close("logits", logits.ToArray<float>(), Rows(expected["logits"]));
        foreach (var (name, values) in expected)
        {
            if (name == "logits") continue;
            golden.Close(name, cache[name].ToArray<float>(), Rows(values));
        }

        // The golden leaves out the scores; all else is there, so no hook of ours goes unchecked.
        Assert.Equal(expected.Keys.Where(n => n != "logits").Order(StringComparer.Ordinal),
            cache.All.Keys.Where(n => !n.EndsWith("attn_scores", StringComparison.Ordinal)).Order(StringComparer.Ordinal));
        Assert.Equal(model.Hooks.All.Where(h => !h.OnRequest).Select(h => h.Name), cache.All.Keys);
        foreach (var (name, tensor) in cache.All) Assert.Equal(model.Hooks[name].ShapeFor(rows.Count, rows[0].Length), tensor.Shape);

        float[] Rows(float[] values) => values[..(values.Length / whole.Length * rows.Count)];
    }
}
