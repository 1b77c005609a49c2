using System.Runtime.InteropServices;

namespace IlgpuSae.Tensors;

/// <summary>Four floats that an ILGPU kernel moves in one access; the address must be a multiple of 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential, Size = 16)]
internal struct Float4
{
    public float X;
    public float Y;
    public float Z;
    public float W;
}
