using IlgpuSae.Hub;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>
/// An SAE as users name it: a folder of the disk, <c>RELEASE/ID</c> of the directory, or
/// <c>organization/name[@revision]/folder</c> of the hub. A folder that exists comes first.
/// </summary>
public sealed record SaeReference
{
    private SaeReference(string text, PretrainedSae? published)
    {
        Text = text;
        Published = published;
    }

    /// <summary>What the user wrote.</summary>
    public string Text { get; }

    /// <summary>The published SAE; null: a folder of the disk.</summary>
    public PretrainedSae? Published { get; }

    /// <summary>Finds what a text names. Touches neither network nor cache.</summary>
    /// <param name="text">The text.</param>
    /// <param name="directory">Known releases; null: those of this library.</param>
    /// <exception cref="InvalidInputException">It names nothing; the message names near ones.</exception>
    public static SaeReference Parse(string text, PretrainedSaes? directory = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(text);
        // A path that is meant as one is told to be missing by the reader of folders.
        var isPath = Path.IsPathRooted(text) || text.StartsWith('.') || text.StartsWith('~') || text.Contains('\\', StringComparison.Ordinal);
        return Directory.Exists(text) || File.Exists(text) || isPath
            ? new SaeReference(text, null)
            : new SaeReference(text, (directory ?? PretrainedSaes.Default).Parse(text));
    }

    /// <summary>Its files on the disk: fetched if need be.</summary>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The folder, or the file where one file is the whole SAE.</returns>
    /// <exception cref="IlgpuSaeException">It cannot be fetched.</exception>
    public string Fetch(Func<HubClient>? hub = null, CancellationToken cancellation = default)
    {
        if (Published is null) return Text;
        if (hub is not null) return Published.Fetch(hub(), cancellation);
        using var own = new HubClient();
        return Published.Fetch(own, cancellation);
    }

    /// <summary>Reads its settings, fetched if need be; the weights are read when it is loaded.</summary>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops a transfer.</param>
    /// <exception cref="IlgpuSaeException">It cannot be fetched or read.</exception>
    public PublishedSae Describe(Func<HubClient>? hub = null, CancellationToken cancellation = default) =>
        PretrainedLoader.Describe(Fetch(hub, cancellation), Published);

    /// <summary>Loads it, fetched if need be.</summary>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops; what has come is kept for the next run.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="IlgpuSaeException">It cannot be fetched or read.</exception>
    public Sae Load(Device device, Func<HubClient>? hub = null, CancellationToken cancellation = default) =>
        PretrainedLoader.Load(Fetch(hub, cancellation), Published, device);
}
