using System.Text;
using IlgpuSae.Files;
using IlgpuSae.Hub;
using IlgpuSae.Saes.Formats;

namespace IlgpuSae.Saes.Pretrained;

/// <summary>Publishes folders of SAEs on the hub the way SAELens does, so that it and this library load them by repository and id.</summary>
public static class SaeUpload
{
    private const string Readme = "README.md";
    private static readonly string[] Allowed = [SaeLensFolder.ConfigFile, SaeLensFolder.WeightsFile, SaeLensFolder.SparsityFile, SaeLensFolder.RunnerConfigFile];

    /// <summary>Uploads SAEs in one commit; a repository that does not exist is made.</summary>
    /// <param name="hub">The hub, with a token that may write.</param>
    /// <param name="repo">The repository.</param>
    /// <param name="folders">Id (the folder in the repository) and folder of the disk. Of it, <c>cfg.json</c>, <c>sae_weights.safetensors</c>, <c>sparsity.safetensors</c> and <c>runner_cfg.json</c> are taken.</param>
    /// <param name="isPrivate">Whether a repository that has to be made is private.</param>
    /// <param name="addReadme">Whether a repository without one gets SAELens' card.</param>
    /// <param name="cancellation">Stops; then nothing is committed.</param>
    /// <exception cref="InvalidInputException">There is nothing to upload, or a folder is no SAE's: said before anything is sent.</exception>
    /// <exception cref="IlgpuSaeException">The hub refuses, or the transfer failed; nothing is committed.</exception>
    public static HubCommit Run(
        HubClient hub, HubRepo repo, IReadOnlyList<KeyValuePair<string, string>> folders, bool isPrivate = false, bool addReadme = true, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(hub);
        ArgumentNullException.ThrowIfNull(repo);
        if (folders.Count == 0) throw new InvalidInputException($"{repo}: upload: no SAEs are given");
        var files = new List<HubUploadFile>();
        foreach (var (id, folder) in folders)
        {
            HubPath.Check(id, repo.Id, "id");
            foreach (var needed in Allowed[..2])
                if (!File.Exists(Path.Combine(folder, needed))) throw new InvalidFileException(Path.Combine(folder, needed), "no such file; an SAE's folder has cfg.json and sae_weights.safetensors");
            // What cannot be read here could not be read by others either.
            SaeLensFolder.ReadConfig(folder);
            using (SafetensorsFile.Open(Path.Combine(folder, SaeLensFolder.WeightsFile)))
            {
                files.AddRange(Allowed.Where(f => File.Exists(Path.Combine(folder, f))).Select(f => HubUploadFile.FromFile($"{id}/{f}", Path.Combine(folder, f))));
            }
        }

        if (addReadme && !HasReadme(hub, repo, cancellation))
            files.Add(HubUploadFile.FromBytes(Readme, Encoding.UTF8.GetBytes(Card(repo.Id, folders.Select(f => f.Key)))));
        var title = folders.Count == 1 ? $"Upload SAE {folders[0].Key}" : $"Upload {folders.Count} SAEs";
        return hub.Upload(repo, files, title, isPrivate, cancellation);
    }

    /// <summary>The id an SAE gets if none is given: its hook, else its folder's name.</summary>
    /// <param name="folder">The folder.</param>
    /// <exception cref="InvalidInputException">It is no SAE's.</exception>
    public static string DefaultId(string folder) => SaeLensFolder.ReadConfig(folder).Metadata.Get<string>("hook_name") is { Length: > 0 } hook
        ? hook
        : Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(folder)));

    /// <summary>SAELens' card: the front matter by which the hub lists the repository under its library, the ids, a loading example.</summary>
    /// <param name="repository">The repository's id.</param>
    /// <param name="ids">Ids of the SAEs.</param>
    public static string Card(string repository, IEnumerable<string> ids) => string.Join('\n',
    [
        "---",
        "library_name: saelens",
        "---",
        "",
        "# SAEs for use with the SAELens library",
        "",
        "This repository contains the following SAEs:",
        .. ids.Select(id => $"- {id}"),
        "",
        "Load these SAEs using SAELens as below:",
        "```python",
        "from sae_lens import SAE",
        "",
        $"sae = SAE.from_pretrained(\"{repository}\", \"<sae_id>\")",
        "```",
    ]);

    private static bool HasReadme(HubClient hub, HubRepo repo, CancellationToken cancellation)
    {
        try
        {
            // The cache's commit may be an old one.
            return hub.ListFiles(repo.At(hub.Refresh(repo, cancellation)), "", cancellation).Any(f => f.Path == Readme);
        }
        catch (HubException e) when (e.Problem is HubProblem.RepositoryNotFound or HubProblem.RevisionNotFound)
        {
            return false;
        }
    }
}
