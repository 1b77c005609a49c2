using System.Security.Cryptography;
using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>A file to be put into a repository.</summary>
public sealed class HubUploadFile
{
    private readonly byte[]? _content;
    private readonly string? _source;

    private HubUploadFile(string path, string? source, byte[]? content, long bytes)
    {
        Path = path;
        _source = source;
        _content = content;
        Bytes = bytes;
    }

    /// <summary>Its name in the repository.</summary>
    public string Path { get; }

    /// <summary>Its size.</summary>
    public long Bytes { get; }

    /// <summary>A file of the disk.</summary>
    /// <param name="path">Its name in the repository.</param>
    /// <param name="source">The file.</param>
    /// <exception cref="InvalidFileException">It does not exist.</exception>
    public static HubUploadFile FromFile(string path, string source)
    {
        var info = new FileInfo(source);
        if (!info.Exists) throw new InvalidFileException(source, Directory.Exists(source) ? "is a folder, a file was expected" : "no such file");
        // Links are uploaded as what they lead to.
        using var stream = Reading(source);
        return new HubUploadFile(path, source, null, stream.Length);
    }

    /// <summary>Content from memory.</summary>
    /// <param name="path">Its name in the repository.</param>
    /// <param name="content">The content.</param>
    public static HubUploadFile FromBytes(string path, byte[] content) => new(path, null, content, content.Length);

    /// <summary>Opens the content.</summary>
    internal Stream Open() => _content is not null ? new MemoryStream(_content, writable: false) : Reading(_source!);

    /// <summary>The first bytes, by which the hub tells text from other content.</summary>
    internal byte[] Sample()
    {
        using var stream = Open();
        var sample = new byte[(int)Math.Min(512, Bytes)];
        stream.ReadExactly(sample);
        return sample;
    }

    /// <summary>The whole content of a small file.</summary>
    internal byte[] ReadAll() => _content ?? ReadFailure.ReadAll(_source!, 1L << 28);

    /// <summary>SHA-256 of the content, in pieces.</summary>
    internal string Sha256()
    {
        using var stream = Open();
        return Convert.ToHexStringLower(SHA256.HashData(stream));
    }

    private static FileStream Reading(string source)
    {
        try
        {
            return new FileStream(source, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16);
        }
        catch (Exception e) when (ReadFailure.Explain(source, e) is { } explained)
        {
            throw explained;
        }
    }
}
