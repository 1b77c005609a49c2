using IlgpuSae.Files;

namespace IlgpuSae.Tokenizers;

/// <summary>Ids and spellings of all tokens, both ways.</summary>
internal sealed class Vocabulary
{
    private const int LargestId = 4_000_000;
    private readonly string _path;
    private readonly Dictionary<string, int> _ids = new(StringComparer.Ordinal);
    private string?[] _pieces = new string?[256];

    /// <param name="path">The file it comes from, for messages.</param>
    public Vocabulary(string path) => _path = path;

    /// <summary>One more than the largest id.</summary>
    public int Size { get; private set; }

    /// <summary>All tokens.</summary>
    public IReadOnlyDictionary<string, int> Ids => _ids;

    /// <summary>Adds a token.</summary>
    /// <exception cref="InvalidFileException">The id is impossible, or taken by another token, or the token has another id.</exception>
    public void Add(string piece, int id)
    {
        if (id is < 0 or > LargestId) throw new InvalidFileException(_path, $"token {Say.Quote(piece)} has the id {id}, expected 0..{LargestId}");
        if (id >= _pieces.Length) Array.Resize(ref _pieces, Math.Max(id + 1, _pieces.Length * 2));
        if (_pieces[id] is { } other && other != piece) throw new InvalidFileException(_path, $"tokens {Say.Quote(other)} and {Say.Quote(piece)} share the id {id}");
        if (!_ids.TryAdd(piece, id) && _ids[piece] != id) throw new InvalidFileException(_path, $"token {Say.Quote(piece)} has the ids {_ids[piece]} and {id}");
        _pieces[id] = piece;
        Size = Math.Max(Size, id + 1);
    }

    /// <summary>The spelling of a token; null when there is none of that id.</summary>
    public string? Piece(int id) => (uint)id < (uint)_pieces.Length ? _pieces[id] : null;

    /// <summary>The id of a token; null when there is none of that spelling.</summary>
    public int? Id(string piece) => _ids.TryGetValue(piece, out var id) ? id : null;
}
