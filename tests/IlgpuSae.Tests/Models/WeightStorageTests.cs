using IlgpuSae.Files;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests.Models;

/// <summary>How weights lie in memory: in 16 bits, in their files, or not at all because they do not fit.</summary>
public sealed class WeightStorageTests
{
    private static readonly int[] Prompt = [3, 17, 42, 5, 60, 1];

    [Theory]
    [InlineData("gpt2_tiny", SafetensorsType.F32)]
    [InlineData("llama_gqa", SafetensorsType.F32)]
    [InlineData("llama_gqa", SafetensorsType.BF16)]
    [InlineData("gemma2", SafetensorsType.F16)]
    [InlineData("gpt_neox_pythia", SafetensorsType.BF16)]
    public void Mapped_files_give_the_same_bytes_and_take_no_memory_of_the_device(string golden, SafetensorsType stored)
    {
        using var folder = new TempFolder();
        var path = Checkpoint.Of(golden).Save(folder, stored);
        using var device = new CpuDevice(2);
        float[] expected;
        long loaded;
        using (var model = HookedTransformer.Load(path, device))
        {
            expected = Logits(model);
            loaded = device.UsedBytes;
        }

        var before = device.UsedBytes;
        using (var model = HookedTransformer.Load(path, device, new ModelLoadOptions { MapFiles = true }))
        {
            Assert.Equal(expected, Logits(model));
            // Conv1D has to be turned, and rows interleaved by head to be gathered: these are copies.
            Assert.True(device.UsedBytes - before < loaded, $"{device.UsedBytes} of {loaded}");
        }

        Assert.Equal(before, device.UsedBytes);
        // Nothing holds the file any more.
        File.Delete(folder["model.safetensors"]);
    }

    [Theory]
    [InlineData("gpt2_tiny", WeightStorage.BF16)]
    [InlineData("gemma2", WeightStorage.BF16)]
    [InlineData("llama_gqa", WeightStorage.F16)]
    public void Weights_rounded_when_loaded_are_those_of_a_rounded_file(string golden, WeightStorage storage)
    {
        using var folder = new TempFolder();
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(Checkpoint.Of(golden).Save(folder), device, new ModelLoadOptions { Storage = storage });
        using var plain = HookedTransformer.Load(folder.Path, device);
        var type = storage == WeightStorage.F16 ? DType.F16 : DType.BF16;
        foreach (var (name, t) in model.Parameters)
        {
            var matrix = t.Shape.Rank == 2 && name != "pos_embed.W_pos";
            Assert.Equal(matrix ? type : DType.F32, t.Type);
            var exact = plain.Parameters[name].ToArray<float>();
            var rounded = HostWeights.Read(t);
            for (var i = 0; i < exact.Length; i++)
                Assert.Equal(!matrix ? exact[i] : storage == WeightStorage.F16 ? (float)(Half)exact[i] : NearestBf16(exact[i]), rounded[i]);
        }

        Golden.Close("logits", Logits(model), Logits(plain), storage == WeightStorage.F16 ? 0.03 : 0.3, 0.05);
    }

    [Fact]
    public void A_number_that_F16_cannot_hold_is_refused()
    {
        using var folder = new TempFolder();
        using var device = new CpuDevice(1);
        var path = Checkpoint.Of("llama_gqa").Set("lm_head.weight", [99, 32], i => i == 40 ? 70000 : 0).Save(folder);
        var e = Assert.Throws<InvalidFileException>(() => HookedTransformer.Load(path, device, new ModelLoadOptions { Storage = WeightStorage.F16 }));
        Assert.EndsWith("tensor \"lm_head.weight\" holds 70000, which F16 cannot hold; keep the model in bfloat16 or float32", e.Message, StringComparison.Ordinal);
        Assert.Equal(0, device.UsedBytes);
    }

    [Fact]
    public void A_model_that_does_not_fit_is_refused_with_the_numbers_before_it_is_read()
    {
        var folder = Golden.Open("lm", "llama_gqa").PathOf("model");
        using var device = new CpuDevice(1) { MemoryLimit = 50_000 };
        var count = HookedTransformer.ReadSpec(folder).ParameterCount;
        var e = Assert.Throws<InvalidInputException>(() => HookedTransformer.Load(folder, device));
        var c = System.Globalization.CultureInfo.InvariantCulture;
        Assert.Equal(string.Create(c, $"{folder}: the weights of this LlamaForCausalLM take {4 * count / 1048576.0:0.0} MiB ({count:N0} numbers), but cpu has 0.0 MiB free; ")
            + "keep it in bfloat16, which takes 0.1 MiB, or map its files instead of loading them, or use a device with more memory", e.Message);
        Assert.Equal(0, device.SystemAllocations);
        // Mapped, all that is loaded are the norms.
        using var mapped = HookedTransformer.Load(folder, device, new ModelLoadOptions { MapFiles = true });
        using var free = new CpuDevice(1);
        Assert.InRange(free.AvailableBytes!.Value, 1, long.MaxValue);
    }

    [Fact]
    public void Tables_of_sixteen_bits_are_gathered_widened()
    {
        using var folder = new TempFolder();
        using var device = new CpuDevice(1);
        using var model = HookedTransformer.Load(Checkpoint.Of("gemma2").Save(folder, SafetensorsType.BF16), device);
        Assert.Equal(DType.BF16, model.Parameters["embed.W_E"].Type);
        using var scope = new TensorScope(device);
        var rows = Embedding.Gather(scope, model.Parameters["embed.W_E"], scope.From<int>([2, 5, 92, -1, 93], [5])).ToArray<float>();
        var all = HostWeights.Read(model.Parameters["embed.W_E"]);
        Assert.Equal([.. all[64..96], .. all[160..192], .. all[(92 * 32)..], .. new float[64]], rows);
    }

    [Fact]
    public void Types_have_the_names_users_know()
    {
        Assert.Equal(WeightStorage.BF16, WeightStorages.Parse("torch.bfloat16"));
        Assert.Equal(WeightStorage.AsStored, WeightStorages.Parse("auto"));
        Assert.Equal("dtype \"int8\" is not known; known: auto (as stored), float32, float16, bfloat16", Assert.Throws<InvalidInputException>(() => WeightStorages.Parse("int8")).Message);
    }

    private static float NearestBf16(float v)
    {
        var low = BitConverter.UInt32BitsToSingle(BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000);
        var high = BitConverter.UInt32BitsToSingle((BitConverter.SingleToUInt32Bits(v) & 0xFFFF0000) + 0x10000);
        double toLow = Math.Abs((double)v - low), toHigh = Math.Abs((double)high - v);
        if (toLow != toHigh) return toLow < toHigh ? low : high;
        return (BitConverter.SingleToUInt32Bits(low) & 0x10000) == 0 ? low : high;
    }

    private static float[] Logits(HookedTransformer model)
    {
        using var scope = new TensorScope(model.Device);
        return model.Forward(scope, HookedTransformer.Tokens(scope, Prompt)).ToArray<float>();
    }
}
