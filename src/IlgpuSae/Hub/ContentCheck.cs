using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace IlgpuSae.Hub;

/// <summary>
/// Compares bytes, as they come, with what the hub says of a file: its size, and its ETag, which is the SHA-256 of a
/// large file and git's blob SHA-1 (of "blob SIZE", a NUL and the content) of a small one. ETags of other servers say
/// nothing about the content; then the size alone is compared.
/// </summary>
internal sealed class ContentCheck : IDisposable
{
    private readonly string _etag;
    private readonly long? _size;
    private readonly IncrementalHash? _hash;
    private long _seen;

    public ContentCheck(string etag, long? size)
    {
        _etag = etag;
        _size = size;
        var hex = etag.All(char.IsAsciiHexDigitLower);
        if (hex && etag.Length == 64) _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        // SHA-1 is git's name for content, not a safeguard against forgery.
        else if (hex && etag.Length == 40 && size is not null) _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA1);
        Restart();
    }

    /// <summary>The hash's name, or what else is compared.</summary>
    private string Kind => _etag.Length == 64 ? "SHA-256" : "git SHA-1";

    /// <summary>Begins anew.</summary>
    public void Restart()
    {
        _seen = 0;
        if (_hash is null) return;
        _hash.TryGetHashAndReset(stackalloc byte[32], out _);
        if (_etag.Length == 40) _hash.AppendData(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"blob {_size}\0")));
    }

    /// <summary>Takes the next bytes.</summary>
    public void Add(ReadOnlySpan<byte> bytes)
    {
        _seen += bytes.Length;
        _hash?.AppendData(bytes);
    }

    /// <summary>What is wrong with all the bytes that came; null if they are right.</summary>
    public string? Problem()
    {
        if (_size is { } size && _seen != size) return string.Create(CultureInfo.InvariantCulture, $"{_seen:N0} bytes came where {size:N0} were announced");
        if (_hash is null) return null;
        var found = Convert.ToHexStringLower(_hash.GetCurrentHash());
        return found == _etag ? null : $"the content's {Kind} is {found}, the hub says {_etag}";
    }

    public void Dispose() => _hash?.Dispose();
}
