using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using IlgpuSae.Tensors;
using Xunit;

namespace IlgpuSae.Tests;

/// <summary>
/// The layers of the library. A folder (= namespace) uses only folders with lower numbers; folders with equal
/// numbers do not see each other. Everything a type's metadata refers to is checked: signatures, fields, bodies.
/// </summary>
public sealed class LayeringTests
{
    private static readonly Dictionary<string, int> Layers = new(StringComparer.Ordinal)
    {
        [""] = -1,
        ["Files"] = 0,
        ["Tensors"] = 1,
        ["Kernels"] = 2,
        ["Autograd"] = 3,
        ["Tokenizers"] = 3,
        ["Datasets"] = 3,
        ["Hub"] = 3,
        ["Models"] = 4,
        ["Saes"] = 5,
        ["Training"] = 6,
        ["Activations"] = 6,
        ["Evaluation"] = 7,
        ["Analysis"] = 7,
        ["Runs"] = 8,
    };

    [Fact]
    public void Every_type_lies_in_a_known_layer()
    {
        foreach (var t in OwnTypes()) Assert.True(Layers.ContainsKey(Folder(t.Namespace)), $"{t.FullName} lies in no layer");
    }

    [Fact]
    public void Folders_use_only_folders_below_them()
    {
        var wrong = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var type in OwnTypes())
        {
            var from = Folder(type.Namespace);
            foreach (var used in UsedTypes(type))
            {
                if (used.Assembly != type.Assembly) continue;
                var to = Folder(used.Namespace);
                if (to != from && Layers[to] >= Layers[from]) wrong.Add($"{type.FullName} uses {used.FullName}");
            }
        }

        Assert.Empty(wrong);
    }

    [Fact]
    public void Ilgpu_appears_in_tensors_and_kernels_alone()
    {
        var wrong = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var type in OwnTypes())
        {
            if (Folder(type.Namespace) is "Tensors" or "Kernels") continue;
            foreach (var used in UsedTypes(type))
                if (used.Assembly.GetName().Name!.StartsWith("ILGPU", StringComparison.Ordinal)) wrong.Add($"{type.FullName} uses {used.FullName}");
        }

        Assert.Empty(wrong);
    }

    [Fact]
    public void The_library_never_touches_the_console()
    {
        using var stream = File.OpenRead(typeof(Tensor).Assembly.Location);
        using var pe = new PEReader(stream);
        var md = pe.GetMetadataReader();
        foreach (var h in md.TypeReferences) Assert.NotEqual("System.Console", $"{md.GetString(md.GetTypeReference(h).Namespace)}.{md.GetString(md.GetTypeReference(h).Name)}");
    }

    [Fact]
    public void There_is_no_mutable_static_state()
    {
        var wrong = OwnTypes()
            .SelectMany(t => t.GetFields(BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
            .Where(f => !f.IsInitOnly && !f.IsLiteral && !IsCompilerMade(f))
            .Select(f => $"{f.DeclaringType!.FullName}.{f.Name}");
        Assert.Empty(wrong);
    }

    /// <summary>Delegate caches and the like: the compiler's own statics, in types or fields with unspeakable names.</summary>
    private static bool IsCompilerMade(FieldInfo f) =>
        f.Name.Contains('<', StringComparison.Ordinal) || f.DeclaringType!.FullName!.Contains('<', StringComparison.Ordinal);

    private static IEnumerable<Type> OwnTypes() => typeof(Tensor).Assembly.GetTypes()
        .Where(t => t.Namespace?.StartsWith("IlgpuSae", StringComparison.Ordinal) == true);

    private static string Folder(string? ns)
    {
        var parts = (ns ?? "").Split('.');
        return parts.Length > 1 && parts[0] == "IlgpuSae" ? parts[1] : "";
    }

    private static HashSet<Type> UsedTypes(Type type)
    {
        const BindingFlags All = BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;
        var used = new HashSet<Type>();
        void Use(Type? t)
        {
            if (t is null) return;
            if (t.HasElementType) { Use(t.GetElementType()); return; }
            if (t.IsGenericParameter || !used.Add(t)) return;
            foreach (var a in t.GetGenericArguments()) Use(a);
            if (t.IsNested) Use(t.DeclaringType);
        }

        Use(type.BaseType);
        foreach (var i in type.GetInterfaces()) Use(i);
        foreach (var f in type.GetFields(All)) Use(f.FieldType);
        foreach (var m in type.GetMethods(All).Cast<MethodBase>().Concat(type.GetConstructors(All)))
        {
            if (m is MethodInfo mi) Use(mi.ReturnType);
            foreach (var p in m.GetParameters()) Use(p.ParameterType);
            if (m.GetMethodBody() is not { } body) continue;
            foreach (var l in body.LocalVariables) Use(l.LocalType);
            foreach (var c in body.ExceptionHandlingClauses)
                if (c.Flags == ExceptionHandlingClauseOptions.Clause) Use(c.CatchType);
            foreach (var member in IlReader.Members(m, body)) { Use(member as Type); Use(member.DeclaringType); }
        }

        used.Remove(type);
        return used;
    }
}
