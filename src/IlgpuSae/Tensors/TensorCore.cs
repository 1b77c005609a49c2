using System.Reflection;
using System.Runtime.InteropServices;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.IR;
using ILGPU.IR.Intrinsics;
using ILGPU.IR.Types;
using ILGPU.Runtime.Cuda;
using Register = ILGPU.Backends.PTX.PTXRegisterAllocator.Register;

namespace IlgpuSae.Tensors;

/// <summary>Four 32-bit words, each two bfloat16 numbers, the first in the lower half: a fragment of a matrix.</summary>
[StructLayout(LayoutKind.Sequential, Size = 16)]
internal struct Word4
{
    public uint X;
    public uint Y;
    public uint Z;
    public uint W;
}

/// <summary>
/// Instructions of NVIDIA's tensor cores and asynchronous copies as ILGPU intrinsics: PTX ISA's mma.m16n8k16, ldmatrix
/// and cp.async. All threads of a warp must call them together. On ILGPU's CPU accelerator they are emulated, lane by
/// lane, which needs warps of 32. As methods with values for operands they stay in registers; ILGPU's inline assembly
/// would pass every operand through local memory.
/// </summary>
internal static class TensorCore
{
    /// <summary>c + a b for a 16 x 16 tile of a and a 16 x 8 tile of b, of which each lane holds the parts PTX lays down.</summary>
    [IntrinsicImplementation]
    public static Float4 MultiplyAdd(Float4 c, Word4 a, uint b0, uint b1)
    {
        // Emulation. Lane l holds of a rows l/4 (X, Z) and l/4 + 8 (Y, W), of b column l/4, of c columns 2(l%4), +1.
        var lane = Warp.LaneIdx;
        var row = lane & ~3;
        var column = (lane & 3) << 3;
        for (var q = 0; q < 4; q++)
        {
            var x = Warp.Shuffle(a.X, row + q);
            var y = Warp.Shuffle(a.Y, row + q);
            var z = Warp.Shuffle(a.Z, row + q);
            var w = Warp.Shuffle(a.W, row + q);
            var l0 = Warp.Shuffle(b0, column + q);
            var l1 = Warp.Shuffle(b1, column + q);
            var r0 = Warp.Shuffle(b0, column + 4 + q);
            var r1 = Warp.Shuffle(b1, column + 4 + q);
            c.X += Dot(x, l0) + Dot(z, l1);
            c.Y += Dot(x, r0) + Dot(z, r1);
            c.Z += Dot(y, l0) + Dot(w, l1);
            c.W += Dot(y, r0) + Dot(w, r1);
        }

        return c;
    }

    /// <summary>Four 8 x 8 matrices out of shared memory; lane l gives where row l%8 of matrix l/8 starts (16 bytes).</summary>
    public static Word4 LoadMatrices(ArrayView<uint> shared, int at)
    {
        if (CudaAsm.IsSupported) return LoadMatricesPtx(ref shared[at]);
        var row = Warp.LaneIdx >> 2;
        var word = Warp.LaneIdx & 3;
        Word4 m = default;
        m.X = shared[Warp.Shuffle(at, row) + word];
        m.Y = shared[Warp.Shuffle(at, 8 + row) + word];
        m.Z = shared[Warp.Shuffle(at, 16 + row) + word];
        m.W = shared[Warp.Shuffle(at, 24 + row) + word];
        return m;
    }

    /// <summary>Starts a copy of 16 bytes from global to shared memory.</summary>
    public static void CopyAsync(ArrayView<uint> shared, int to, ArrayView<uint> global, long from)
    {
        if (CudaAsm.IsSupported)
        {
            CopyAsyncPtx(ref shared[to], ref global[from]);
            return;
        }

        shared[to] = global[from];
        shared[to + 1] = global[from + 1];
        shared[to + 2] = global[from + 2];
        shared[to + 3] = global[from + 3];
    }

    /// <summary>Closes the batch of copies started since the last call.</summary>
    /// <param name="unused">An intrinsic needs a parameter.</param>
    [IntrinsicImplementation]
    public static void CommitCopies(int unused)
    {
        // Emulated copies are done when they are started.
    }

    /// <summary>Waits until at most the newest batch of copies is under way.</summary>
    /// <param name="unused">An intrinsic needs a parameter.</param>
    [IntrinsicImplementation]
    public static void WaitForAllButOne(int unused)
    {
        // As above.
    }

    /// <summary>Makes a context know the intrinsics.</summary>
    internal static void Register(Context context)
    {
        foreach (var (method, generator) in new[]
        {
            (nameof(MultiplyAdd), nameof(GenerateMultiplyAdd)), (nameof(LoadMatricesPtx), nameof(GenerateLoadMatrices)),
            (nameof(CopyAsyncPtx), nameof(GenerateCopyAsync)), (nameof(CommitCopies), nameof(GenerateCommit)),
            (nameof(WaitForAllButOne), nameof(GenerateWait)),
        })
        {
            const BindingFlags Any = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;
            context.GetIntrinsicManager().RegisterMethod(typeof(TensorCore).GetMethod(method, Any)!,
                new PTXIntrinsic(typeof(TensorCore), generator, IntrinsicImplementationMode.GenerateCode));
        }
    }

    [IntrinsicImplementation]
    private static Word4 LoadMatricesPtx(ref uint row) => default;

    [IntrinsicImplementation]
    private static void CopyAsyncPtx(ref uint shared, ref uint global)
    {
        // Called where PTX is generated only.
    }

    private static float Dot(uint a, uint b) =>
        (Interop.IntAsFloat(a << 16) * Interop.IntAsFloat(b << 16)) + (Interop.IntAsFloat(a & 0xFFFF0000u) * Interop.IntAsFloat(b & 0xFFFF0000u));

    private static void GenerateMultiplyAdd(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var sums = Group(generator, generator.Load(value[0]));
        var a = Group(generator, generator.Load(value[1]));
        var b = $"{{{Operand(generator, value[2])},{Operand(generator, value[3])}}}";
        var result = Group(generator, generator.Allocate(value));
        using var command = generator.BeginCommand("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32");
        command.AppendRawString($" {result}, {a}, {b}, {sums}");
    }

    private static void GenerateLoadMatrices(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var address = SharedAddress(generator, value[0]);
        var result = Group(generator, generator.Allocate(value));
        using var command = generator.BeginCommand(address);
        command.AppendRawString($" ldmatrix.sync.aligned.m8n8.x4.shared.b16 {result}, [sa]; }} //");
    }

    private static void GenerateCopyAsync(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var address = SharedAddress(generator, value[0]);
        var source = Operand(generator, value[1]);
        using var command = generator.BeginCommand(address);
        command.AppendRawString($" cp.async.cg.shared.global [sa], [{source}], 16; }} //");
    }

    private static void GenerateCommit(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        using var command = generator.BeginCommand("cp.async.commit_group");
    }

    private static void GenerateWait(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        using var command = generator.BeginCommand("cp.async.wait_group 1");
    }

    /// <summary>Opens a block in which sa is a shared address of 32 bits.</summary>
    private static string SharedAddress(PTXCodeGenerator generator, Value pointer)
    {
        var p = Operand(generator, pointer);
        var generic = ((AddressSpaceType)pointer.Type).AddressSpace == MemoryAddressSpace.Generic;
        var convert = generic ? $"cvta.to.shared.u64 sq, {p}; cvt.u32.u64 sa, sq;" : $"cvt.u32.u64 sa, {p};";
        return $"{{ .reg .u64 sq; .reg .u32 sa; {convert}";
    }

    private static string Operand(PTXCodeGenerator generator, Value value) => Name(generator.EnsureHardwareRegister(generator.LoadPrimitive(value)));

    /// <summary>The registers of a structure, in braces.</summary>
    private static string Group(PTXCodeGenerator generator, Register structure)
    {
        var names = new List<string>();
        foreach (var child in ((PTXRegisterAllocator.CompoundRegister)structure).Children)
            names.Add(Name(generator.EnsureHardwareRegister((PTXRegisterAllocator.PrimitiveRegister)child)));
        return $"{{{string.Join(",", names)}}}";
    }

    private static string Name(Register register) =>
        "%" + PTXRegisterAllocator.GetStringRepresentation((PTXRegisterAllocator.HardwareRegister)register);
}
