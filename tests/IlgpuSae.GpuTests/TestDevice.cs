using IlgpuSae.Tensors;

namespace IlgpuSae.GpuTests;

/// <summary>The device that tests run on.</summary>
internal static class TestDevice
{
    /// <summary>ILGPU's CPU accelerator, or the device that ILGPUSAE_TEST_DEVICE names (cuda:0).</summary>
    public static Device Open() =>
        Device.Open(Environment.GetEnvironmentVariable("ILGPUSAE_TEST_DEVICE") is { Length: > 0 } name ? name : "ilgpu-cpu");
}
