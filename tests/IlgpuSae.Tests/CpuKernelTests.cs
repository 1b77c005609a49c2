using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using Xunit;

namespace IlgpuSae.Tests;

public sealed class CpuKernelTests
{
    public static TheoryData<string> Kernels => KernelHarness.KernelNames();

    [Theory]
    [MemberData(nameof(Kernels))]
    public void Agrees_with_its_definition_and_finite_differences(string kernel)
    {
        using var device = new CpuDevice(2);
        Assert.True(KernelHarness.Check(kernel, device) > 0);
    }
}
