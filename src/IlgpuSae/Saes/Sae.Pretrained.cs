using IlgpuSae.Hub;
using IlgpuSae.Saes.Pretrained;
using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>SAEs that others have published.</summary>
public abstract partial class Sae
{
    /// <summary>Loads a published SAE, from the cache or fetched into it.</summary>
    /// <param name="release">A release of SAELens' directory (<c>gpt2-small-res-jb</c>), or a repository of the hub (<c>organization/name</c>).</param>
    /// <param name="id">The SAE's id (<c>blocks.8.hook_resid_pre</c>); of a repository, its folder.</param>
    /// <param name="device">Where the parameters are to live.</param>
    /// <param name="hub">The hub; null: as the environment says.</param>
    /// <returns>The SAE, which the caller disposes of.</returns>
    /// <exception cref="InvalidInputException">There is no such SAE; the message names near ones.</exception>
    /// <exception cref="IlgpuSaeException">It cannot be fetched or read.</exception>
    public static Sae FromPretrained(string release, string id, Device device, HubClient? hub = null)
    {
        var published = PretrainedSaes.Default.Find(release, id);
        if (hub is not null) return PretrainedLoader.Load(published.Fetch(hub), published, device);
        using var own = new HubClient();
        return PretrainedLoader.Load(published.Fetch(own), published, device);
    }
}
