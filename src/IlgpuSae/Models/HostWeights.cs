using System.Runtime.InteropServices;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>Parameters as single precision on the host, whatever type they are kept in.</summary>
internal static class HostWeights
{
    /// <summary>A copy of a parameter; F16 and BF16 are widened exactly.</summary>
    internal static float[] Read(Tensor t)
    {
        if (t.Type == DType.F32) return t.ToArray<float>();
        var bytes = new byte[t.Bytes];
        t.CopyToBytes(bytes);
        var values = new float[t.Count];
        var halves = MemoryMarshal.Cast<byte, ushort>(bytes);
        for (var i = 0; i < values.Length; i++)
            values[i] = t.Type == DType.BF16 ? BitConverter.UInt32BitsToSingle((uint)halves[i] << 16) : (float)BitConverter.UInt16BitsToHalf(halves[i]);
        return values;
    }
}
