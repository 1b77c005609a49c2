using System.Linq.Expressions;
using System.Reflection;
using ILGPU;
using ILGPU.Runtime;
using IlgpuSae;
using IlgpuSae.Tensors;
using Device = IlgpuSae.Tensors.Device;

// The program that FakeCudaTests runs with a stand-in for NVIDIA's driver on its library path. Its argument names what
// to do; it prints what it saw, and ends with 2 where the library reported an error on purpose.
try
{
    using var device = (GpuDevice)Device.Open("cuda:" + (args.Length > 1 ? args[1] : "0"));
    switch (args[0])
    {
        case "describe":
            Console.WriteLine($"{device.Name}: {device.Description}; groups of {device.GroupSize}");
            break;
        case "memory":
            Memory(device);
            break;
        case "kernels":
            foreach (var m in Kernels()) Launch(device, m);
            Console.WriteLine($"{Kernels().Count()} kernels");
            break;
        default:
            throw new InvalidInputException($"unknown task {args[0]}");
    }

    return 0;
}
catch (IlgpuSaeException e)
{
    Console.WriteLine(e.Message);
    return 2;
}

static void Memory(GpuDevice device)
{
    var values = Enumerable.Range(0, 1000).Select(i => (float)i).ToArray();
    for (var step = 0; step < 3; step++)
    {
        using var scope = new TensorScope(device);
        var x = scope.From<float>(values, [10, 100]);
        var y = scope.New([10, 100]);
        y.CopyFrom(x);
        using var row = y.Slice(3, 1);
        Console.WriteLine($"row 3 starts with {row.ToArray<float>()[0]}, zeros sum to {scope.Zeros([50]).ToArray<float>().Sum()}, {device.SystemAllocations} allocations");
    }

    using var tooLarge = new Tensor(device, [1 << 30, 1 << 10]);
}

static IEnumerable<MethodInfo> Kernels() => typeof(Tensor).Assembly.GetTypes()
    .SelectMany(t => t.GetMethods(BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
    .Where(m => m.GetCustomAttribute<GpuKernelAttribute>() is not null);

// As GpuDevice.Launch does, for a kernel known only by reflection: loaded through the pipeline, arguments all zero.
static void Launch(GpuDevice device, MethodInfo kernel)
{
    var types = kernel.GetParameters().Select(p => p.ParameterType).ToArray();
    var action = kernel.CreateDelegate(Expression.GetActionType(types));
    var launcherType = Expression.GetActionType([typeof(AcceleratorStream), typeof(KernelConfig), .. types]);
    var load = typeof(GpuDevice).GetMethod("Load", BindingFlags.Instance | BindingFlags.NonPublic)!.MakeGenericMethod(launcherType);
    var launcher = (Delegate)load.Invoke(device, [action])!;
    var group = kernel.GetCustomAttribute<GpuKernelAttribute>()!.GroupSize;
    KernelConfig config = (1, group == 0 ? device.GroupSize : group);
    object?[] arguments = [device.Accelerator.DefaultStream, config, .. types.Select(Activator.CreateInstance)];
    launcher.DynamicInvoke(arguments);
}
