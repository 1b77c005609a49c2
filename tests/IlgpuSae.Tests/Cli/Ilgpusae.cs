using IlgpuSae.Cli;
using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Tests.Cli;

/// <summary>The program, run in this process.</summary>
internal static class Ilgpusae
{
    /// <summary>Runs a command line.</summary>
    public static (int Code, string Output, string Error) Run(params string[] arguments) => Run(TestContext.Current.CancellationToken, arguments);

    /// <summary>Runs a command line that can be interrupted.</summary>
    public static (int Code, string Output, string Error) Run(CancellationToken interrupt, params string[] arguments)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.Run(arguments, output, error, interrupt);
        return (code, output.ToString(), error.ToString());
    }

    /// <summary>Runs a command line in another environment.</summary>
    public static (int Code, string Output, string Error) RunIn(IReadOnlyDictionary<string, string?> environment, params string[] arguments)
    {
        using var output = new StringWriter();
        using var error = new StringWriter();
        var code = CommandLine.Run(arguments, output, error, n => environment.GetValueOrDefault(n), TestContext.Current.CancellationToken);
        return (code, output.ToString(), error.ToString());
    }

    /// <summary>Runs a command line that must succeed.</summary>
    public static string Succeed(params string[] arguments)
    {
        var (code, output, error) = Run(arguments);
        Assert.True(code == 0, $"exit code {code}: {error}");
        return output;
    }

    /// <summary>Runs a command line that must be refused with one line; returns it.</summary>
    public static string Fail(int expected, params string[] arguments)
    {
        var (code, _, error) = Run([.. arguments, "--quiet"]);
        Assert.True(code == expected, $"exit code {code}, expected {expected}: {error}");
        var lines = error.TrimEnd('\n').Split('\n');
        Assert.True(lines.Length == 1 && lines[0].StartsWith("error: ", StringComparison.Ordinal), error);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
        return lines[0];
    }

    /// <summary>Writes activations.</summary>
    public static string Activations(TempFolder folder, string name, int rows, int width, params float[] values)
    {
        if (values.Length == 0) values = [.. Enumerable.Range(0, rows * width).Select(i => MathF.Sin(i * 0.7f) + (0.1f * (i % 7)))];
        new SafetensorsWriter().Add("acts", [rows, width], values).Save(folder[name]);
        return folder[name];
    }

    /// <summary>Writes tokens.</summary>
    public static string Tokens(TempFolder folder, string name, int contexts, int length, Func<int, int> token)
    {
        new SafetensorsWriter().Add("tokens", [contexts, length], Enumerable.Range(0, contexts * length).Select(token).ToArray()).Save(folder[name]);
        return folder[name];
    }
}
