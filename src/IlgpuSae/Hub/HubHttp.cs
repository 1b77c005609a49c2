using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace IlgpuSae.Hub;

/// <summary>
/// Requests to the hub. The token goes to the hub's own address and nowhere else, whatever redirects say; requests that
/// may succeed a moment later are repeated; when there were too many, the wait is the one the server asks for.
/// </summary>
internal sealed class HubHttp : IDisposable
{
    private const int MostRedirects = 10;
    private readonly HubOptions _options;
    private readonly Uri _endpoint;
    private readonly HttpClient _client;

    public HubHttp(HubOptions options)
    {
        _options = options;
        _endpoint = new Uri(options.Endpoint);
        _client = new HttpClient(new SocketsHttpHandler
        {
            // Redirects are followed by hand: what goes along depends on where they lead.
            AllowAutoRedirect = false,
            UseCookies = false,
            AutomaticDecompression = DecompressionMethods.None,
            ConnectTimeout = TimeSpan.FromSeconds(Math.Max(10, options.MetadataTimeout.TotalSeconds)),
            PooledConnectionLifetime = TimeSpan.FromMinutes(5),
        })
        {
            Timeout = Timeout.InfiniteTimeSpan,
        };
    }

    /// <summary>The address of a file's content.</summary>
    public Uri FileAddress(HubRepo repo, string path) => new($"{_options.Endpoint}/{repo.Page}/resolve/{Uri.EscapeDataString(repo.Revision)}/{HubPath.Escape(path)}");

    /// <summary>An address of the hub's interface.</summary>
    public Uri ApiAddress(string path) => new($"{_options.Endpoint}/api/{path}");

    /// <summary>An address below the hub's own.</summary>
    public Uri Address(string path) => new($"{_options.Endpoint}/{path}");

    /// <summary>Asks for a file's headers. Redirects to elsewhere are reported, those within the hub (renamed repositories) followed.</summary>
    public HttpResponseMessage Head(Uri address, CancellationToken cancellation)
    {
        for (var redirects = 0; ; redirects++)
        {
            var at = address;
            var response = Send(() => new HttpRequestMessage(HttpMethod.Head, at), _options.MetadataTimeout, cancellation);
            if (!IsRedirect(response) || redirects == MostRedirects || response.Headers.Location is not { } location || !IsRelative(location)) return response;
            address = new Uri(at, location);
            response.Dispose();
        }
    }

    /// <summary>Asks for content, following redirects wherever they lead.</summary>
    /// <param name="address">Where to begin.</param>
    /// <param name="from">Bytes that are there already.</param>
    /// <param name="timeout">How long to wait for the answer's head.</param>
    /// <param name="cancellation">Ends the wait.</param>
    public HttpResponseMessage Get(Uri address, long from, TimeSpan timeout, CancellationToken cancellation)
    {
        for (var redirects = 0; ; redirects++)
        {
            var at = address;
            var response = Send(() =>
            {
                var request = new HttpRequestMessage(HttpMethod.Get, at);
                if (from > 0) request.Headers.Range = new RangeHeaderValue(from, null);
                return request;
            }, timeout, cancellation);
            if (!IsRedirect(response) || response.Headers.Location is not { } location) return response;
            if (redirects == MostRedirects) throw new HubTransferException($"{address}: more than {MostRedirects} redirects");
            address = new Uri(at, location.OriginalString);
            response.Dispose();
            if (address.Scheme is not ("http" or "https")) throw new HubTransferException($"{at}: redirected to {address.Scheme}, which is no way to a file");
        }
    }

    /// <summary>Asks the interface for JSON.</summary>
    /// <param name="address">Where.</param>
    /// <param name="repo">The repository asked about; null: none.</param>
    /// <param name="what">What is asked for.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <returns>The value, and the address of the next page if there is one.</returns>
    public (JsonNode Value, Uri? Next) GetJson(Uri address, HubRepo? repo, string what, CancellationToken cancellation)
    {
        using var response = Get(address, 0, _options.MetadataTimeout, cancellation);
        var value = ReadJson(response, repo, what, cancellation);
        return (value, Next(address, response));
    }

    /// <summary>Sends JSON and reads the answer.</summary>
    /// <returns>The answer; null if it has no body. An answer that is no success is <paramref name="accept"/>ed or thrown.</returns>
    public JsonNode? Post(Uri address, byte[] body, string type, HubRepo? repo, string what, Func<HttpStatusCode, bool>? accept, CancellationToken cancellation, string? wanted = null)
    {
        using var response = Send(() =>
        {
            var request = new HttpRequestMessage(HttpMethod.Post, address) { Content = new ByteArrayContent(body) };
            request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse(type);
            if (wanted is not null) request.Headers.Accept.ParseAdd(wanted);
            return request;
        }, TimeSpan.FromSeconds(Math.Max(60, _options.MetadataTimeout.TotalSeconds)), cancellation);
        if (accept?.Invoke(response.StatusCode) == true) return null;
        return ReadJson(response, repo, what, cancellation, mayBeEmpty: true);
    }

    /// <summary>Sends a request, again if it may help.</summary>
    /// <param name="make">Makes the request anew for every try.</param>
    /// <param name="timeout">How long to wait for the answer's head.</param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <returns>The answer, of any status that another try would not change.</returns>
    /// <exception cref="HubTransferException">The server cannot be reached.</exception>
    public HttpResponseMessage Send(Func<HttpRequestMessage> make, TimeSpan timeout, CancellationToken cancellation)
    {
        for (var tries = 0; ; tries++)
        {
            using var request = make();
            Prepare(request);
            string failure;
            try
            {
                using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                limit.CancelAfter(timeout);
                var response = _client.Send(request, HttpCompletionOption.ResponseHeadersRead, limit.Token);
                if (tries >= _options.Retries) return response;
                if (response.StatusCode == HttpStatusCode.TooManyRequests)
                {
                    // The clock of the server and ours may differ by a moment.
                    var wait = (HubErrors.Wait(response) ?? Backoff(tries)) + TimeSpan.FromMilliseconds(50);
                    if (wait > _options.LongestWait) return response;
                    response.Dispose();
                    _options.Note?.Invoke(string.Create(CultureInfo.InvariantCulture, $"{request.RequestUri!.Host}: too many requests; going on in {Math.Ceiling(wait.TotalSeconds):0} s, as the server asks"));
                    Pause(wait, cancellation);
                    continue;
                }

                if (!HubErrors.IsPassing(response.StatusCode)) return response;
                failure = $"answered {(int)response.StatusCode}";
                response.Dispose();
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                failure = string.Create(CultureInfo.InvariantCulture, $"did not answer within {timeout.TotalSeconds:0.#} s");
                if (tries >= _options.Retries) throw Unreachable(request, failure, null);
            }
            catch (HttpRequestException e)
            {
                failure = Reason(e);
                // A name that does not exist or a certificate that is not trusted will be no other in a second.
                if (tries >= _options.Retries || e.HttpRequestError is HttpRequestError.NameResolutionError or HttpRequestError.SecureConnectionError) throw Unreachable(request, failure, e);
            }

            _options.Note?.Invoke($"{request.RequestUri!.Host}: {failure}; trying again");
            Pause(Backoff(tries), cancellation);
        }
    }

    /// <summary>The wait before the next try: doubled every time, to eight times at most.</summary>
    public TimeSpan Backoff(int tries) => _options.RetryDelay * (1 << Math.Min(tries, 3));

    /// <summary>Waits.</summary>
    public static void Pause(TimeSpan time, CancellationToken cancellation)
    {
        cancellation.WaitHandle.WaitOne(time);
        cancellation.ThrowIfCancellationRequested();
    }

    /// <summary>Whether an address is the hub's own: same scheme, host and port.</summary>
    public bool IsHub(Uri address) => Uri.Compare(address, _endpoint, UriComponents.SchemeAndServer, UriFormat.Unescaped, StringComparison.OrdinalIgnoreCase) == 0;

    public void Dispose() => _client.Dispose();

    /// <summary>What a network failure is called: the innermost reason, on one line.</summary>
    public static string Reason(Exception e)
    {
        while (e.InnerException is { } inner) e = inner;
        return e.Message.ReplaceLineEndings(" ").TrimEnd('.');
    }

    private static bool IsRedirect(HttpResponseMessage response) => (int)response.StatusCode is 301 or 302 or 303 or 307 or 308;

    /// <summary>Whether a Location names no host. A path is absolute to .NET, which takes it for a file's, and // names a host.</summary>
    private static bool IsRelative(Uri location) =>
        !location.OriginalString.StartsWith("//", StringComparison.Ordinal) && (location.OriginalString.StartsWith('/') || !location.IsAbsoluteUri);

    private static HubTransferException Unreachable(HttpRequestMessage request, string failure, Exception? e) =>
        new($"{request.RequestUri!.GetLeftPart(UriPartial.Authority)}: cannot be reached: {failure}; check the network, HF_ENDPOINT and the proxy, or set HF_HUB_OFFLINE=1 to use the cache alone", e);

    private void Prepare(HttpRequestMessage request)
    {
        request.Headers.UserAgent.ParseAdd(HubOptions.UserAgent);
        request.Headers.AcceptEncoding.ParseAdd("identity");
        if (_options.Token is not null && request.Headers.Authorization is null && IsHub(request.RequestUri!))
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", _options.Token);
    }

    private JsonNode ReadJson(HttpResponseMessage response, HubRepo? repo, string what, CancellationToken cancellation, bool mayBeEmpty = false)
    {
        var text = ReadText(response, cancellation);
        if (!response.IsSuccessStatusCode)
        {
            // The interface tells its reason in the body.
            if (HubErrors.Header(response, "X-Error-Message") is null && TryParse(text)?["error"] is JsonValue error) response.Headers.TryAddWithoutValidation("X-Error-Message", error.ToString().ReplaceLineEndings(" "));
            throw HubErrors.Explain(response, repo, what, _options);
        }

        if (mayBeEmpty && string.IsNullOrWhiteSpace(text)) return new JsonObject();
        return TryParse(text) ?? throw new HubTransferException($"{what}: {response.RequestMessage?.RequestUri?.GetLeftPart(UriPartial.Path)} answered something that is no JSON; is HF_ENDPOINT a hub?");
    }

    private string ReadText(HttpResponseMessage response, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(TimeSpan.FromSeconds(Math.Max(60, _options.DownloadTimeout.TotalSeconds)));
        try
        {
            return Encoding.UTF8.GetString(response.Content.ReadAsByteArrayAsync(limit.Token).GetAwaiter().GetResult());
        }
        catch (Exception e) when (e is HttpRequestException or IOException || (e is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw new HubTransferException($"{response.RequestMessage?.RequestUri?.GetLeftPart(UriPartial.Path)}: the answer broke off: {Reason(e)}; try again", e);
        }
    }

    private static JsonNode? TryParse(string text)
    {
        try
        {
            return JsonNode.Parse(text);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary><c>Link: &lt;ADDRESS&gt;; rel="next"</c>, if it leads to the hub again.</summary>
    private Uri? Next(Uri address, HttpResponseMessage response)
    {
        foreach (var link in HubErrors.Header(response, "Link")?.Split(',') ?? [])
        {
            var (from, to) = (link.IndexOf('<', StringComparison.Ordinal), link.IndexOf('>', StringComparison.Ordinal));
            if (from < 0 || to < from || !link.Contains("rel=\"next\"", StringComparison.Ordinal)) continue;
            var next = new Uri(address, link[(from + 1)..to]);
            return IsHub(next) ? next : null;
        }

        return null;
    }
}
