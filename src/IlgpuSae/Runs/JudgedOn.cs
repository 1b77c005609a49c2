using IlgpuSae.Activations;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>What SAEs are judged on after training: taken from the source once, so that all of a sweep see the same.</summary>
internal sealed class JudgedOn : IDisposable
{
    private Tensor? _rows;
    private TokenSource? _contexts;
    private long? _start;

    /// <summary>The source's next rows.</summary>
    /// <param name="source">Where they come from.</param>
    /// <param name="count">How many.</param>
    /// <param name="device">Where they are to lie.</param>
    public RowSource Rows(IActivationSource source, int count, Device device)
    {
        if (_rows is null)
        {
            _rows = new Tensor(device, [count, source.Width]);
            for (var done = 0; done < count;)
            {
                using var scope = new TensorScope(device);
                if (source.Next(scope, Math.Min(4096, count - done)) is not { } part) throw new InvalidInputException($"eval: the source ended after {done} rows");
                using var place = _rows.Slice(done, part.Shape[0]);
                place.CopyFrom(part);
                done += part.Shape[0];
            }
        }

        return new RowSource(_rows, repeat: false);
    }

    /// <summary>The tokens' next contexts; a corpus that is too short begins again.</summary>
    /// <param name="tokens">Where they come from.</param>
    /// <param name="count">How many.</param>
    public TokenSource Contexts(TokenSource tokens, int count)
    {
        _contexts ??= new RecordedTokens(tokens.Name, tokens.ContextSize, [.. Enumerable.Range(0, count).Select(_ => tokens.Next()!)]);
        _contexts.Rewind();
        return _contexts;
    }

    /// <summary>The row a source stands at the first time this is asked.</summary>
    /// <param name="source">The source.</param>
    public long Start(GroundTruthSource source) => _start ??= source.Position;

    /// <summary>Gives the rows' memory back.</summary>
    public void Dispose()
    {
        _rows?.Dispose();
        _contexts?.Dispose();
    }
}
