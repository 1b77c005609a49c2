using System.Globalization;
using System.Reflection;

namespace IlgpuSae.Hub;

/// <summary>
/// Which hub, with which token, into which cache. <see cref="FromEnvironment"/> reads the variables that
/// Hugging Face's own Python library reads, with its defaults, so that both share one cache and one login.
/// </summary>
public sealed record HubOptions
{
    /// <summary>The public hub.</summary>
    public const string DefaultEndpoint = "https://huggingface.co";

    /// <summary>Address of the hub, without a slash at the end (HF_ENDPOINT).</summary>
    public string Endpoint { get; init; } = DefaultEndpoint;

    /// <summary>Folder of the cache (HF_HUB_CACHE, else <c>hub</c> in HF_HOME).</summary>
    public required string CacheFolder { get; init; }

    /// <summary>The access token; null: nobody is logged in (HF_TOKEN, else the token file).</summary>
    public string? Token { get; init; }

    /// <summary>Where the token came from, for messages.</summary>
    public string? TokenSource { get; init; }

    /// <summary>File that a login writes the token to (HF_TOKEN_PATH, else <c>token</c> in HF_HOME).</summary>
    public string? TokenPath { get; init; }

    /// <summary>Whether the network must not be used (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE).</summary>
    public bool Offline { get; init; }

    /// <summary>Whether the cache links from snapshots to blobs; where links cannot be made, files are moved or copied anyhow.</summary>
    public bool Symlinks { get; init; } = true;

    /// <summary>How long to wait for the answer to a question (HF_HUB_ETAG_TIMEOUT, seconds).</summary>
    public TimeSpan MetadataTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a download may stand still (HF_HUB_DOWNLOAD_TIMEOUT, seconds).</summary>
    public TimeSpan DownloadTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How often a request is tried again after the network or the server failed.</summary>
    public int Retries { get; init; } = 5;

    /// <summary>Wait before the first further try; doubled for every next one, to eight times at most.</summary>
    public TimeSpan RetryDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Longest wait that the server may ask for when requests were too many (its windows are five minutes).</summary>
    public TimeSpan LongestWait { get; init; } = TimeSpan.FromMinutes(6);

    /// <summary>Told while bytes move.</summary>
    public Action<HubProgress>? Progress { get; init; }

    /// <summary>Told what the user ought to know: waits, repeated tries.</summary>
    public Action<string>? Note { get; init; }

    /// <summary>How the program introduces itself.</summary>
    public static string UserAgent { get; } =
        "ilgpusae/" + (typeof(HubOptions).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0");

    /// <summary>Reads the environment.</summary>
    /// <param name="variable">Gives a variable's value; null: those of the process.</param>
    /// <exception cref="InvalidInputException">A variable's value cannot be used.</exception>
    public static HubOptions FromEnvironment(Func<string, string?>? variable = null)
    {
        variable ??= Environment.GetEnvironmentVariable;
        string? Value(string name) => variable(name) is { Length: > 0 } v ? v : null;

        var user = Value("HOME") ?? Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        var home = Expand(Value("HF_HOME") ?? Path.Combine(Value("XDG_CACHE_HOME") ?? Path.Combine(user, ".cache"), "huggingface"), user, variable);
        var tokenPath = Expand(Value("HF_TOKEN_PATH") ?? Path.Combine(home, "token"), user, variable);
        var (token, source) = IsTrue(Value("HF_HUB_DISABLE_IMPLICIT_TOKEN")) ? (null, null) : Credentials(Value, tokenPath);
        var defaults = new HubOptions { CacheFolder = "" };
        return new HubOptions
        {
            Endpoint = Address(Value("HF_ENDPOINT") ?? DefaultEndpoint),
            CacheFolder = Expand(Value("HF_HUB_CACHE") ?? Value("HUGGINGFACE_HUB_CACHE") ?? Path.Combine(home, "hub"), user, variable),
            Token = token,
            TokenSource = source,
            TokenPath = tokenPath,
            Offline = IsTrue(Value("HF_HUB_OFFLINE")) || IsTrue(Value("TRANSFORMERS_OFFLINE")),
            Symlinks = !IsTrue(Value("HF_HUB_DISABLE_SYMLINKS")),
            MetadataTimeout = Seconds(Value, "HF_HUB_ETAG_TIMEOUT", defaults.MetadataTimeout),
            DownloadTimeout = Seconds(Value, "HF_HUB_DOWNLOAD_TIMEOUT", defaults.DownloadTimeout),
        };
    }

    /// <summary>Without the token.</summary>
    public override string ToString() => $"hub {Endpoint}, cache {CacheFolder}, {(Token is null ? "no token" : "with a token")}";

    /// <summary>The token file is not opened when the variable is set: a broken file must not disturb.</summary>
    private static (string? Token, string? Source) Credentials(Func<string, string?> value, string tokenPath)
    {
        foreach (var name in new[] { "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN" })
            if (Clean(value(name)) is { } token) return (Sendable(token, name), name);
        try
        {
            return Clean(File.ReadAllText(tokenPath)) is { } token ? (Sendable(token, tokenPath), tokenPath) : (null, null);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return (null, null);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidInputException($"{tokenPath}: the hub's token cannot be read: {e.Message.ReplaceLineEndings(" ")}; set HF_TOKEN or HF_TOKEN_PATH", e);
        }
    }

    private static string? Clean(string? token) =>
        token?.Replace("\r", "", StringComparison.Ordinal).Replace("\n", "", StringComparison.Ordinal).Trim() is { Length: > 0 } clean ? clean : null;

    private static string Sendable(string token, string source) => token.All(c => c is > ' ' and < '\x7f')
        ? token
        : throw new InvalidInputException($"{source}: the hub's token has characters that no token has; copy it again from {DefaultEndpoint}/settings/tokens");

    private static string Expand(string path, string user, Func<string, string?> variable)
    {
        if (path == "~" || path.StartsWith("~/", StringComparison.Ordinal)) path = user + path[1..];
        foreach (var name in path.Split('/', '\\').Where(p => p.StartsWith('$')))
            if (variable(name.Trim('$', '{', '}')) is { } value) path = path.Replace(name, value, StringComparison.Ordinal);
        return path;
    }

    private static string Address(string endpoint)
    {
        endpoint = endpoint.TrimEnd('/');
        return Uri.TryCreate(endpoint, UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https" && uri is { Query: "", Fragment: "" }
            ? endpoint
            : throw new InvalidInputException($"HF_ENDPOINT: \"{endpoint}\" is no address; expected one such as {DefaultEndpoint}");
    }

    private static bool IsTrue(string? value) => value?.ToUpperInvariant() is "1" or "ON" or "YES" or "TRUE";

    private static TimeSpan Seconds(Func<string, string?> value, string name, TimeSpan otherwise) => value(name) is not { } text ? otherwise
        : double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out var seconds) && seconds is > 0 and < 1e6 ? TimeSpan.FromSeconds(seconds)
        : throw new InvalidInputException($"{name}: \"{text}\" is not a number of seconds");
}
