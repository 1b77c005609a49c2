using System.Text;

namespace IlgpuSae.Training;

/// <summary>
/// One JSON object a line and step, with the fields of <see cref="StepMetrics"/>. Lines go to FILE.partial, flushed one
/// by one so that they can be followed; the file takes its name when the run ends, and goes when the run fails.
/// </summary>
public sealed class JsonLinesSink : IMetricSink
{
    private readonly string _path;
    private StreamWriter? _writer;

    /// <summary>Opens the file.</summary>
    /// <param name="path">Where the lines are to lie; an existing file is replaced at the end.</param>
    /// <exception cref="InvalidFileException">It cannot be written.</exception>
    public JsonLinesSink(string path)
    {
        _path = path;
        Try(() =>
        {
            if (Path.GetDirectoryName(Path.GetFullPath(path)) is { } folder) Directory.CreateDirectory(folder);
            _writer = new StreamWriter(Partial, append: false, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false)) { NewLine = "\n" };
        });
    }

    private string Partial => _path + ".partial";

    /// <inheritdoc/>
    public void Write(StepMetrics metrics) => Try(() =>
    {
        _writer!.WriteLine(metrics.ToJson().ToJsonString());
        _writer.Flush();
    });

    /// <inheritdoc/>
    public void Complete() => Try(() =>
    {
        if (_writer is null) return;
        _writer.Dispose();
        _writer = null;
        File.Move(Partial, _path, overwrite: true);
    });

    /// <summary>Removes what was written unless <see cref="Complete"/> was called.</summary>
    public void Dispose()
    {
        if (_writer is null) return;
        try
        {
            _writer.Dispose();
        }
        catch (IOException)
        {
            // The disk may be full: what matters is that nothing stays.
        }

        _writer = null;
        Try(() => File.Delete(Partial));
    }

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidFileException(_path, $"metrics cannot be written: {e.Message}", e);
        }
    }
}
