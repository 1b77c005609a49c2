using System.IO.Compression;
using System.Text;

namespace IlgpuSae.Testing;

/// <summary>Files as numpy.save and numpy.savez write them.</summary>
internal static class NumpyFiles
{
    /// <summary>One array: magic, version 1.0, header padded to 64 bytes, elements.</summary>
    public static byte[] Npy(string descr, string shape, byte[] elements, bool fortran = false, byte version = 1)
    {
        var header = $"{{'descr': '{descr}', 'fortran_order': {(fortran ? "True" : "False")}, 'shape': {shape}, }}";
        return Npy(header, elements, version);
    }

    public static byte[] Npy(string header, byte[] elements, byte version = 1)
    {
        var prefix = version == 1 ? 10 : 12;
        var padded = header.PadRight(((prefix + header.Length + 64) / 64 * 64) - prefix - 1) + "\n";
        var bytes = new MemoryStream();
        bytes.Write([0x93, .. "NUMPY"u8, version, 0]);
        bytes.Write(version == 1 ? BitConverter.GetBytes((ushort)padded.Length) : BitConverter.GetBytes(padded.Length));
        bytes.Write(Encoding.ASCII.GetBytes(padded));
        bytes.Write(elements);
        return bytes.ToArray();
    }

    /// <summary>An array of a tensor's values.</summary>
    public static byte[] Npy(TorchTensor t, bool fortran = false) => Npy(t.Storage switch
    {
        float[] => "<f4",
        double[] => "<f8",
        Half[] => "<f2",
        ushort[] => "|V2",
        long[] => "<i8",
        int[] => "<i4",
        _ => throw new ArgumentException("no type"),
    }, $"({string.Join(", ", t.Shape)}{(t.Shape.Length == 1 ? "," : "")})", t.Bytes(), fortran);

    public static byte[] Npz(IEnumerable<KeyValuePair<string, byte[]>> arrays, CompressionLevel level = CompressionLevel.NoCompression)
    {
        var bytes = new MemoryStream();
        using (var zip = new ZipArchive(bytes, ZipArchiveMode.Create, leaveOpen: true))
            foreach (var (name, array) in arrays) PyTorchFiles.Entry(zip, name + ".npy", array, level);
        return bytes.ToArray();
    }
}
