namespace IlgpuSae.Kernels;

/// <summary>
/// Marks a static class that holds one operation: contract, Reference, Cpu, Gpu and derivative. The class has a
/// method <c>internal static IEnumerable&lt;KernelCase&gt; Cases()</c>, by which one generic test checks it on every device.
/// </summary>
[AttributeUsage(AttributeTargets.Class)]
internal sealed class KernelAttribute : Attribute;
