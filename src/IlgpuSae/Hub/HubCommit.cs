namespace IlgpuSae.Hub;

/// <summary>What an upload left in the repository.</summary>
/// <param name="Hash">The commit.</param>
/// <param name="Address">Its page.</param>
/// <param name="Files">Files it changed.</param>
public sealed record HubCommit(string Hash, string Address, IReadOnlyList<string> Files);
