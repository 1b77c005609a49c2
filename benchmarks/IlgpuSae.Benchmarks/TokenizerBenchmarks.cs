using BenchmarkDotNet.Attributes;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Benchmarks;

/// <summary>
/// Tokenizing English text with GPT-2's vocabulary: ILGPUSAE_GPT2_TOKENIZER names the folder of vocab.json and
/// merges.txt, ILGPUSAE_TEXT a text file. Divide the file's size by the time for MB/s.
/// </summary>
public class TokenizerBenchmarks
{
    private string _folder = "";
    private string _text = "";
    private string[] _documents = [];
    private Tokenizer _warm = null!;
    private Tokenizer _cold = null!;

    [GlobalSetup]
    public void Load()
    {
        _folder = Environment.GetEnvironmentVariable("ILGPUSAE_GPT2_TOKENIZER") ?? throw new InvalidOperationException("ILGPUSAE_GPT2_TOKENIZER does not name a folder");
        _text = File.ReadAllText(Environment.GetEnvironmentVariable("ILGPUSAE_TEXT") ?? throw new InvalidOperationException("ILGPUSAE_TEXT does not name a file"));
        _documents = _text.Split("\n\n");
        _warm = Tokenizer.Load(_folder);
        _warm.Encode(_text);
    }

    [IterationSetup(Target = nameof(FirstTime))]
    public void Forget() => _cold = Tokenizer.Load(_folder);

    [Benchmark]
    public int[] WholeText() => _warm.Encode(_text);

    [Benchmark]
    public int[] FirstTime() => _cold.Encode(_text);

    [Benchmark]
    public int[][] DocumentsOnOneCore() => _warm.EncodeAll(_documents, threads: 1);

    [Benchmark]
    public int[][] DocumentsOnAllCores() => _warm.EncodeAll(_documents);

    [Benchmark]
    public IReadOnlyList<TokenSpan> WithOffsets() => _warm.EncodeWithOffsets(_text);
}
