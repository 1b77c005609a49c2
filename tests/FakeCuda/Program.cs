using System.Linq.Expressions;
using System.Reflection;
using ILGPU;
using ILGPU.Runtime;
using IlgpuSae;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Device = IlgpuSae.Tensors.Device;

// The program that FakeCudaTests runs with a stand-in for NVIDIA's driver on its library path. Its argument names what
// to do; it prints what it saw, and ends with 2 where the library reported an error on purpose.
try
{
    var precision = args[0].EndsWith("-bf16", StringComparison.Ordinal) ? MatmulPrecision.Bf16 : MatmulPrecision.F32;
    using var device = (GpuDevice)Device.Open("cuda:" + (args.Length > 1 ? args[1] : "0"), precision: precision);
    switch (args[0])
    {
        case "describe":
            Console.WriteLine($"{device.Name}: {device.Description}; groups of {device.GroupSize}");
            break;
        case "memory":
            Memory(device);
            break;
        case "kernels":
            // All of them, or those of the class that the third argument names.
            var kernels = Kernels().Where(m => args.Length < 3 || m.DeclaringType!.Name == args[2]).ToArray();
            foreach (var m in kernels) Launch(device, m);
            Console.WriteLine($"{kernels.Length} kernels");
            break;
        case "cublas-f32" or "cublas-bf16":
            Console.WriteLine($"cuBLAS found: {Cublas.Of(device) is not null}");
            // Factors of the type that precision asks for: the stand-in runs no kernel that would convert them.
            var type = precision == MatmulPrecision.Bf16 ? DType.BF16 : DType.F32;
            for (var form = 0; form < 4; form++)
                Console.WriteLine($"largest error {ProductError(device, type, (form & 1) != 0, (form & 2) != 0):F6}");
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

// Small integers, which every type holds and whose products are exact.
static unsafe double ProductError(GpuDevice device, DType type, bool transposeA, bool transposeB)
{
    const int M = 3, N = 5, K = 4;
    using var cpu = new CpuDevice(1);
    using var scope = new TensorScope(device);
    var random = new Random(7);
    var a = Enumerable.Range(0, M * K).Select(_ => (double)random.Next(-9, 10)).ToArray();
    var b = Enumerable.Range(0, N * K).Select(_ => (double)random.Next(-9, 10)).ToArray();
    Tensor On(double[] values, Shape shape)
    {
        using var host = new Tensor(cpu, shape, type);
        for (var i = 0; i < values.Length; i++)
        {
            if (type == DType.F32) ((float*)host.HostAddress)[i] = (float)values[i];
            else ((ushort*)host.HostAddress)[i] = (ushort)(BitConverter.SingleToUInt32Bits((float)values[i]) >> 16);
        }

        var t = scope.New(shape, type);
        t.CopyFrom(host);
        return t;
    }

    var y = Gemm.Multiply(scope, On(a, transposeA ? [K, M] : [M, K]), On(b, transposeB ? [N, K] : [K, N]), null, transposeA, transposeB);
    return y.ToArray<float>().Zip(Gemm.Reference((M, N, K), a, b, null, transposeA, transposeB), (x, e) => Math.Abs(x - e)).Max();
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
