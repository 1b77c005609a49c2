using IlgpuSae.Files;

namespace IlgpuSae.Hub;

/// <summary>Names of files in repositories, which become names in the cache: none may lead out of it.</summary>
internal static class HubPath
{
    /// <summary>Refuses names that no file of a repository can have, or that would leave the cache's folder.</summary>
    /// <param name="path">The name, with / between folders.</param>
    /// <param name="repository">Whose, for the message.</param>
    /// <param name="what">What it names.</param>
    /// <exception cref="HubException">The name is refused.</exception>
    public static void Check(string path, string repository, string what = "file name")
    {
        var reason = path.Length == 0 ? "it is empty"
            : path[0] == '/' ? "it begins with /"
            : path.Contains('\\', StringComparison.Ordinal) ? "it has a \\"
            : path.Any(c => char.IsControl(c)) ? "it has a control character"
            : path.Length > 1024 ? "it is longer than 1024 characters"
            : path.Split('/').Any(p => p is "" or "." or "..") ? "it has an empty part, . or .."
            // On Windows these would name another drive, a stream of a file, or a device.
            : OperatingSystem.IsWindows() && path.IndexOfAny([':', '*', '?', '"', '<', '>', '|']) >= 0 ? "Windows has no such names"
            : null;
        if (reason is not null) throw new HubException(HubProblem.BadName, $"{repository}: {what} {Say.Quote(path)} is refused: {reason}");
    }

    /// <summary>Whether a name matches one of the patterns, in which * stands for anything, / included.</summary>
    public static bool Matches(string path, IReadOnlyCollection<string> patterns) =>
        patterns.Count == 0 || patterns.Any(p => System.IO.Enumeration.FileSystemName.MatchesSimpleExpression(p, path, ignoreCase: false));

    /// <summary>The name as part of an address.</summary>
    public static string Escape(string path) => string.Join('/', path.Split('/').Select(Uri.EscapeDataString));
}
