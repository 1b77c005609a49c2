using System.CommandLine;
using System.Globalization;
using System.Text.Json.Nodes;
using IlgpuSae.Hub;

namespace IlgpuSae.Cli.Verbs;

[Verb("hub cache", "Show what the cache holds; remove a repository from it.", 83)]
internal sealed class HubCacheVerb : Verb
{
    private readonly Option<string?> _remove = Options.Text("--remove", "ID", "Remove this repository with all its revisions.");
    private readonly Option<string> _type = HubOption.Type();

    public override IEnumerable<OptionGroup> Groups => [new("Cache", _remove, _type)];

    public override void Run(ParseResult arguments, Session session)
    {
        var cache = session.Hub().Cache;
        if (arguments.GetValue(_remove) is { } id)
        {
            if (!cache.Remove(new HubRepo(id, HubOption.Kind(arguments.GetValue(_type)!)))) throw new InvalidInputException($"{id}: is not in the cache {cache.Folder}");
            session.Output.WriteLine($"removed {id}");
            return;
        }

        var repos = cache.Repositories();
        var text = new Report(session.Output).Section(string.Create(CultureInfo.InvariantCulture, $"{cache.Folder}: {repos.Count} repositories, {TransferBar.Size(repos.Sum(r => r.Bytes))}"));
        foreach (var r in repos)
        {
            var names = string.Join(", ", r.Revisions.Select(v => $"{v.Commit[..Math.Min(8, v.Commit.Length)]}{(v.Names.Count > 0 ? $" ({string.Join(", ", v.Names)})" : "")}"));
            text.Add(r.Kind == HubRepoKind.Model ? r.Id : $"{r.Kind.ToString().ToLowerInvariant()} {r.Id}", string.Create(CultureInfo.InvariantCulture, $"{TransferBar.Size(r.Bytes)} in {r.Files} files"),
                names + (r.UnfinishedBytes > 0 ? $"; {TransferBar.Size(r.UnfinishedBytes)} of unfinished downloads" : ""));
        }

        text.Write();
        session.Result(new JsonObject
        {
            ["path"] = cache.Folder,
            ["repositories"] = new JsonArray([.. repos.Select(r => (JsonNode)new JsonObject
            {
                ["id"] = r.Id,
                ["type"] = r.Kind.ToString().ToLowerInvariant(),
                ["bytes"] = r.Bytes,
                ["files"] = r.Files,
                ["unfinished_bytes"] = r.UnfinishedBytes,
                ["revisions"] = new JsonArray([.. r.Revisions.Select(v => (JsonNode)v.Commit)]),
            })]),
        });
    }
}
