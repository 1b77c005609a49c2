using System.Reflection;
using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Testing;

/// <summary>
/// The generic kernel test: every [Kernel] class lists its cases; each is run on a device, compared with the
/// definition in double precision, and its recorded derivative with central differences of that definition.
/// </summary>
internal static class KernelHarness
{
    /// <summary>Step of the central differences; the definition is in double, so 1e-5 leaves about 1e-10.</summary>
    private const double Step = 1e-5;

    public static IEnumerable<Type> KernelTypes() =>
        typeof(Tensor).Assembly.GetTypes().Where(t => t.GetCustomAttribute<KernelAttribute>() is not null).OrderBy(t => t.Name, StringComparer.Ordinal);

    public static IReadOnlyList<KernelCase> CasesOf(Type kernel)
    {
        var method = kernel.GetMethod("Cases", BindingFlags.Static | BindingFlags.NonPublic | BindingFlags.Public)
            ?? throw new InvalidOperationException($"{kernel.Name} has no Cases()");
        return ((IEnumerable<KernelCase>)method.Invoke(null, null)!).ToList();
    }

    public static TheoryData<string> KernelNames()
    {
        var data = new TheoryData<string>();
        foreach (var t in KernelTypes()) data.Add(t.Name);
        return data;
    }

    /// <summary>Runs every case of a kernel on a device; returns how many ran.</summary>
    public static int Check(string kernel, Device device)
    {
        var type = KernelTypes().Single(t => t.Name == kernel);
        var ran = 0;
        foreach (var c in CasesOf(type))
        {
            if (device is GpuDevice { IsCuda: false } && !c.OnIlgpuCpu) continue;
            CheckCase($"{kernel} \"{c.Label}\" on {device.Name}", c, device);
            ran++;
        }

        return ran;
    }

    private static void CheckCase(string what, KernelCase c, Device device)
    {
        var random = new Random(StableSeed(what));
        var values = c.Inputs.Select(i => Values(i, random)).ToArray();
        // What the kernel sees is rounded to float, so the definition must see the same numbers.
        for (var k = 0; k < values.Length; k++)
            if (c.Inputs[k].Type == DType.F32)
                for (var i = 0; i < values[k].Length; i++) values[k][i] = (float)values[k][i];

        using var scope = new TensorScope(device);
        using var tape = new Tape(scope);
        var tensors = new Tensor[values.Length];
        for (var k = 0; k < values.Length; k++)
        {
            var input = c.Inputs[k];
            tensors[k] = input.Type == DType.I32
                ? scope.From<int>(values[k].Select(v => (int)v).ToArray(), input.Shape)
                : scope.From<float>(values[k].Select(v => (float)v).ToArray(), input.Shape);
            if (input.Differentiable) tape.Watch(tensors[k]);
        }

        var outputs = c.Run(scope, tensors);
        var expected = c.Reference(values);
        Assert.True(outputs.Length == expected.Length, $"{what}: {outputs.Length} outputs, the definition has {expected.Length}");
        for (var o = 0; o < outputs.Length; o++) Compare($"{what}, output {o}", Read(outputs[o]), expected[o], c.Tolerance);

        if (!c.Inputs.Any(i => i.Differentiable)) return;
        var weights = outputs.Select(o => Enumerable.Range(0, checked((int)o.Count)).Select(_ => (double)(float)Normal(random)).ToArray()).ToArray();
        var seeds = outputs.Select((o, i) => (o, scope.From<float>(weights[i].Select(v => (float)v).ToArray(), o.Shape)))
            .Where(s => s.o.Type == DType.F32 && tape.Tracks(s.o)).ToArray();
        Assert.True(seeds.Length > 0, $"{what}: has differentiable inputs but recorded nothing");
        var seeded = outputs.Select(o => seeds.Any(s => ReferenceEquals(s.o, o))).ToArray();
        tape.Backward(seeds);

        double Objective(double[][] x)
        {
            var y = c.Reference(x);
            var sum = 0.0;
            for (var o = 0; o < y.Length; o++)
                if (seeded[o])
                    for (var i = 0; i < y[o].Length; i++) sum += weights[o][i] * y[o][i];
            return sum;
        }

        for (var k = 0; k < values.Length; k++)
        {
            if (!c.Inputs[k].Differentiable) continue;
            var numeric = new double[values[k].Length];
            for (var i = 0; i < numeric.Length; i++)
            {
                var x = values[k][i];
                values[k][i] = x + Step;
                var up = Objective(values);
                values[k][i] = x - Step;
                var down = Objective(values);
                values[k][i] = x;
                numeric[i] = (up - down) / (2 * Step);
            }

            Compare($"{what}, gradient of input {k}", Read(tape.Gradient(tensors[k])), numeric, c.GradientTolerance);
        }
    }

    private static void Compare(string what, double[] actual, double[] expected, double tolerance)
    {
        Assert.True(actual.Length == expected.Length, $"{what}: {actual.Length} values, expected {expected.Length}");
        var scale = 1.0;
        foreach (var e in expected) if (double.IsFinite(e)) scale = Math.Max(scale, Math.Abs(e));
        for (var i = 0; i < actual.Length; i++)
        {
            if (actual[i].Equals(expected[i])) continue;
            var d = Math.Abs(actual[i] - expected[i]);
            Assert.True(d <= tolerance * scale, $"{what}: element {i} is {actual[i]:R}, expected {expected[i]:R} (off by {d:E2}, allowed {tolerance * scale:E2})");
        }
    }

    private static double[] Read(Tensor t) => t.Type == DType.I32
        ? t.ToArray<int>().Select(v => (double)v).ToArray()
        : t.ToArray<float>().Select(v => (double)v).ToArray();

    private static double[] Values(KernelInput input, Random random)
    {
        if (input.Fill == Fill.Given) return (double[])input.Values!.Clone();
        var v = new double[input.Shape.Count];
        for (var i = 0; i < v.Length; i++)
        {
            v[i] = input.Fill switch
            {
                Fill.Normal => Normal(random),
                Fill.Positive => 0.1 + random.NextDouble(),
                Fill.Index => random.Next(input.Limit),
                _ => 0,
            };
        }

        return v;
    }

    private static double Normal(Random r) => Math.Sqrt(-2 * Math.Log(1 - r.NextDouble())) * Math.Cos(2 * Math.PI * r.NextDouble());

    private static int StableSeed(string text)
    {
        var h = 17;
        foreach (var c in text) h = unchecked((h * 31) + c);
        return h;
    }
}
