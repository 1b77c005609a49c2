using IlgpuSae.Tokenizers;

namespace IlgpuSae.Activations;

/// <summary>
/// Contexts from text: a file, or all .txt files of a folder in the order of their names, tokenised without BOS and
/// packed by <see cref="TokenPacker"/>. Each file is one document, or several with a separator between them.
/// </summary>
public sealed class TextTokenSource : TokenSource
{
    /// <summary>Up to this many tokens are kept from the first time round: 64 MB.</summary>
    private const long MostKept = 16_000_000;

    private readonly string _path;
    private readonly Tokenizer _tokenizer;
    private readonly TokenPacker _packer;
    private readonly string _separator;
    private List<int[]>? _kept;

    /// <summary>Finds the files.</summary>
    /// <param name="path">A text file or a folder.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="packing">Context size and special tokens.</param>
    /// <param name="documentSeparator">Text that ends a document inside a file; empty: a file is one document.</param>
    /// <exception cref="InvalidFileException">No such file or folder, or no .txt file in it.</exception>
    public TextTokenSource(string path, Tokenizer tokenizer, PackingOptions packing, string documentSeparator = "") : base(packing.ContextSize)
    {
        _path = path;
        _tokenizer = tokenizer;
        _packer = new TokenPacker(packing);
        _separator = documentSeparator;
        Files = Find(path);
    }

    /// <inheritdoc/>
    public override string Name => _path;

    /// <summary>The text files, in order.</summary>
    public IReadOnlyList<string> Files { get; }

    /// <inheritdoc/>
    public override IEnumerable<int[]> Contexts() => _kept ?? ReadAll();

    private static List<string> Find(string path)
    {
        if (File.Exists(path)) return [path];
        if (!Directory.Exists(path)) throw new InvalidFileException(path, "no such file or folder; text is a file, or a folder of .txt files");
        var files = Directory.EnumerateFiles(path, "*.txt", SearchOption.AllDirectories).Order(StringComparer.Ordinal).ToList();
        return files.Count > 0 ? files : throw new InvalidFileException(path, "the folder holds no .txt file");
    }

    private IEnumerable<int[]> ReadAll()
    {
        List<int[]>? kept = [];
        foreach (var context in _packer.Pack(Files.SelectMany(Documents).Select(d => _tokenizer.Encode(d, addBos: false))))
        {
            if (kept is not null && (kept.Count + 1L) * ContextSize > MostKept) kept = null;
            kept?.Add(context);
            yield return context;
        }

        _kept = kept;
    }

    private IEnumerable<string> Documents(string file)
    {
        string text;
        try
        {
            text = File.ReadAllText(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidFileException(file, $"cannot be read: {e.Message}", e);
        }

        return _separator.Length == 0 ? [text] : text.Split(_separator, StringSplitOptions.RemoveEmptyEntries);
    }
}
