using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.GpuTests;

/// <summary>
/// The ILGPU side of every kernel on ILGPU's CPU accelerator, or on the device that ILGPUSAE_TEST_DEVICE names, which
/// also gets the large cases. A kernel that reads out of bounds ends the process, which is why these tests have a
/// project of their own.
/// </summary>
public sealed class IlgpuKernelTests
{
    public static TheoryData<string> Kernels => KernelHarness.KernelNames();

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Agrees_with_its_definition_and_finite_differences(string kernel)
    {
        // One context a kernel: a context in which a compilation failed is unusable afterwards.
        using var device = TestDevice.Open();
        Assert.True(KernelHarness.Check(kernel, device) > 0);
    }
}
