using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Testing;

/// <summary>Encode, decode, forward and every observation point of an SAE against numbers SAELens computed.</summary>
internal static class SaeGolden
{
    /// <summary>Compares an SAE with one of the case's expectation files.</summary>
    public static void Check(Golden golden, Sae sae, string expectedFile)
    {
        var expected = golden.Floats(expectedFile);
        using var scope = new TensorScope(sae.Device);
        var x = Input(golden, scope);
        var features = sae.Encode(scope, x, out var frame);
        void Close(string name, Tensor actual)
        {
            Assert.True(expected.Remove(name, out var values), $"{expectedFile} has no {name}");
            golden.Close($"{expectedFile} {name}", actual.ToArray<float>(), values);
        }

        Close("feature_acts", DenseFeatures.Of(scope, features));
        // A skip transcoder's decode leaves out what passes the features by.
        Close("decoded", sae.Decode(scope, features, sae.Config.IsTranscoder ? null : frame));
        var forward = expected["forward"];
        var y = sae.Forward(scope, x);
        Assert.Equal(Shape.Create([.. x.Shape.Dims[..^1], sae.Config.ReshapeActivations == ReshapeActivations.None ? sae.Config.OutputWidth : x.Shape.Last]), y.Shape);
        Close("forward", y);
        if (sae.Config.IsTranscoder)
        {
            // With the input's frame it is there, and SAELens' transcoders have no further points.
            golden.Close("decoded with the frame", sae.Decode(scope, features, frame).ToArray<float>(), forward);
            Assert.Empty(expected);
            return;
        }

        var hooks = new SaeHooks();
        // SAELens 6.18's JumpReLU in training does not pass these two; it does so later, and here.
        string[] passedBy = Path.GetFileName(golden.Folder) == "train_jumprelu" && expectedFile == "expected.safetensors" ? [SaeHooks.ActsPre, SaeHooks.ActsPost] : [];
        foreach (var point in SaeHooks.Points.Except(passedBy))
        {
            hooks.On(point, value =>
            {
                Close($"cache.{point}", value);
                return null;
            });
        }

        sae.Forward(scope, x, hooks);
        Assert.Empty(expected);
    }

    /// <summary>The case's input.</summary>
    public static Tensor Input(Golden golden, TensorScope scope)
    {
        var shape = golden.Case.GetProperty("inputs").GetProperty("tensors").GetProperty("x")[1];
        return scope.From<float>(golden.Floats("inputs.safetensors")["x"], Shape.Create([.. shape.EnumerateArray().Select(d => d.GetInt32())]));
    }

    /// <summary>The parameters are those of a folder, within the case's tolerance.</summary>
    public static void SameParameters(Golden golden, Sae sae, string folder)
    {
        using var other = SaeLensFolder.Load(golden.PathOf(folder), sae.Device);
        Assert.Equal(other.Config, sae.Config);
        Assert.Equal(other.Parameters.Count, sae.Parameters.Count);
        foreach (var (name, tensor) in sae.Parameters)
            golden.Close($"{folder} {name}", tensor.ToArray<float>(), other.Parameters[name].ToArray<float>());
    }
}
