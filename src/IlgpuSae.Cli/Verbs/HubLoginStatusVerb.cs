using System.CommandLine;
using System.Text.Json.Nodes;

namespace IlgpuSae.Cli.Verbs;

[Verb("hub login-status", "Show which account's token is used, and from where.", 82)]
internal sealed class HubLoginStatusVerb : Verb
{
    public override IEnumerable<OptionGroup> Groups => [];

    public override void Run(ParseResult arguments, Session session)
    {
        var options = session.Hub().Options;
        var text = new Report(session.Output).Section(options.Endpoint);
        var json = new JsonObject { ["endpoint"] = options.Endpoint, ["token_source"] = options.TokenSource };
        if (options.Token is null)
        {
            text.Add("token", "none", $"set HF_TOKEN, or write it to {options.TokenPath}; get one at {options.Endpoint}/settings/tokens");
        }
        else
        {
            var account = session.Hub().WhoAmI(session.Interrupt)!;
            text.Add("account", account.Name).Add("organizations", account.Organizations.Count == 0 ? "none" : string.Join(", ", account.Organizations))
                .Add("token", $"from {options.TokenSource}", $"{account.TokenName} {(account.TokenRole is { } role ? $"({role})" : "")}".Trim());
            json["account"] = account.Name;
            json["role"] = account.TokenRole;
        }

        text.Write();
        session.Result(json);
    }
}
