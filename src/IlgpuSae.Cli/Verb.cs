using System.CommandLine;

namespace IlgpuSae.Cli;

/// <summary>Registers a verb: its words, its one-line summary, and its place in the list of verbs.</summary>
[AttributeUsage(AttributeTargets.Class)]
internal sealed class VerbAttribute(string words, string summary, int order) : Attribute
{
    /// <summary>As typed: <c>train</c>, or <c>sae inspect</c> for a verb below another word.</summary>
    public string Words { get; } = words;

    public string Summary { get; } = summary;

    public int Order { get; } = order;
}

/// <summary>Options that stand together in the help, under one heading.</summary>
internal sealed record OptionGroup(string Title, params IReadOnlyList<Option> Options);

/// <summary>
/// A verb of the command line: one file in Verbs/. It says which options it has and what of the library it calls; it
/// has no logic of its own.
/// </summary>
internal abstract class Verb
{
    /// <summary>Its options, in the order of the help.</summary>
    public abstract IEnumerable<OptionGroup> Groups { get; }

    /// <summary>A few whole command lines for the end of the help.</summary>
    public virtual IReadOnlyList<string> Examples => [];

    /// <summary>Does the work. Throws for what goes wrong.</summary>
    public abstract void Run(ParseResult arguments, Session session);
}
