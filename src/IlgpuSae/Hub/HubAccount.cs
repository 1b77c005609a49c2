namespace IlgpuSae.Hub;

/// <summary>The account a token belongs to.</summary>
/// <param name="Name">Its name on the hub.</param>
/// <param name="Organizations">Organizations it is a member of.</param>
/// <param name="TokenName">The name its owner gave the token; null if the hub does not say.</param>
/// <param name="TokenRole">What the token may do: read, write, fineGrained; null if the hub does not say.</param>
public sealed record HubAccount(string Name, IReadOnlyList<string> Organizations, string? TokenName, string? TokenRole);
