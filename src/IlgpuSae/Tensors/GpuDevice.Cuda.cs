using System.Globalization;
using ILGPU.Runtime.Cuda;

namespace IlgpuSae.Tensors;

/// <summary>Opening of CUDA devices.</summary>
public sealed partial class GpuDevice
{
    private string CudaFacts { get; init; } = "";

    private static GpuDevice OpenCuda(int index, MatmulPrecision precision)
    {
        var driver = CudaDriver.Ask();
        if (driver.Problem is { } problem) throw new InvalidInputException($"device cuda:{index}: {problem}, or use --device cpu");
        if (index >= driver.Devices)
        {
            throw new InvalidInputException(string.Create(CultureInfo.InvariantCulture,
                $"device cuda:{index}: the machine has {driver.Devices} CUDA device(s), cuda:0 .. cuda:{driver.Devices - 1}"));
        }

        var context = NewContext(b => b.Cuda());
        try
        {
            var device = context.Devices.OfType<CudaDevice>().FirstOrDefault(d => d.DeviceId == index)
                ?? throw new InvalidInputException(string.Create(CultureInfo.InvariantCulture,
                    $"device cuda:{index}: the driver (CUDA {driver.VersionText}) lists the device, but one of its properties could not be read; update NVIDIA's driver, or use --device cpu"));
            var accelerator = device.CreateCudaAccelerator(context);
            return new GpuDevice(context, accelerator, $"cuda:{index}")
            {
                Precision = precision,
                CudaFacts = string.Create(CultureInfo.InvariantCulture,
                    $"compute capability {accelerator.Architecture.Major}.{accelerator.Architecture.Minor}, CUDA driver {driver.VersionText}, "),
            };
        }
        catch (CudaException e)
        {
            context.Dispose();
            throw new InvalidInputException($"device cuda:{index}: NVIDIA's driver refused a context: {e.Message}; or use --device cpu", e);
        }
        catch
        {
            context.Dispose();
            throw;
        }
    }
}
