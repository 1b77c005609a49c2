using System.Numerics;
using System.Reflection;
using System.Reflection.Emit;
using IlgpuSae.Tensors;

namespace IlgpuSae.GpuTests;

/// <summary>
/// Finds in a kernel's IL, and in the IL of the library's methods it calls, what ILGPU 1.5.3 compiles wrongly: integer
/// division by a constant power of two becomes an arithmetic shift, which rounds negative numbers down and takes
/// unsigned numbers from 2^31 on for negative.
/// </summary>
internal static class KernelIl
{
    private static readonly Dictionary<short, OpCode> Codes = typeof(OpCodes).GetFields(BindingFlags.Public | BindingFlags.Static)
        .Select(f => (OpCode)f.GetValue(null)!).ToDictionary(o => o.Value);

    /// <summary>One line for each such division.</summary>
    public static IReadOnlyList<string> MiscompiledDivisions(MethodBase entry)
    {
        var found = new List<string>();
        var seen = new HashSet<MethodBase>();
        var open = new Stack<MethodBase>([entry]);
        while (open.TryPop(out var method))
        {
            if (!seen.Add(method) || method.GetMethodBody() is null) continue;
            long? constant = null;
            foreach (var (code, operand) in Instructions(method))
            {
                if ((code == OpCodes.Div || code == OpCodes.Div_Un) && constant is > 1 and { } c && BitOperations.IsPow2(c))
                    found.Add($"{method.DeclaringType!.Name}.{method.Name} divides an integer by {c}: use a shift of an unsigned or known non-negative number");
                if (operand is MethodBase called && (called.Module == typeof(Tensor).Module || called.Module == typeof(KernelIl).Module)) open.Push(called);
                // A conversion between a constant and the division keeps the constant.
                if (!code.Name!.StartsWith("conv.", StringComparison.Ordinal) || code.Name.StartsWith("conv.r", StringComparison.Ordinal))
                    constant = Constant(code, operand);
            }
        }

        return found;
    }

    private static long? Constant(OpCode code, object? operand)
    {
        if (code == OpCodes.Ldc_I4 || code == OpCodes.Ldc_I8 || code == OpCodes.Ldc_I4_S) return (long)operand!;
        var short0 = code.Value - OpCodes.Ldc_I4_0.Value;
        return code.Size == 1 && short0 is >= 0 and <= 8 ? short0 : null;
    }

    private static IEnumerable<(OpCode Code, object? Operand)> Instructions(MethodBase method)
    {
        var il = method.GetMethodBody()!.GetILAsByteArray()!;
        var typeArguments = method.DeclaringType!.IsGenericType ? method.DeclaringType.GetGenericArguments() : null;
        var methodArguments = method.IsGenericMethod ? method.GetGenericArguments() : null;
        for (var i = 0; i < il.Length;)
        {
            short value = il[i++];
            if (value == 0xFE) value = unchecked((short)(0xFE00 | il[i++]));
            var code = Codes[value];
            object? operand = null;
            switch (code.OperandType)
            {
                case OperandType.InlineNone: break;
                case OperandType.ShortInlineI: operand = (long)(sbyte)il[i]; i += 1; break;
                case OperandType.ShortInlineBrTarget or OperandType.ShortInlineVar: i += 1; break;
                case OperandType.InlineVar: i += 2; break;
                case OperandType.InlineI8: operand = BitConverter.ToInt64(il, i); i += 8; break;
                case OperandType.InlineR: i += 8; break;
                case OperandType.InlineSwitch: i += 4 + (4 * BitConverter.ToInt32(il, i)); break;
                case OperandType.InlineI: operand = (long)BitConverter.ToInt32(il, i); i += 4; break;
                case OperandType.InlineMethod:
                    operand = method.Module.ResolveMethod(BitConverter.ToInt32(il, i), typeArguments, methodArguments);
                    i += 4;
                    break;
                default: i += 4; break;
            }

            yield return (code, operand);
        }
    }
}
