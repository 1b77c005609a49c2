namespace IlgpuSae.Hub;

/// <summary>A file of a repository.</summary>
/// <param name="Path">Its name, folders with / between them.</param>
/// <param name="Bytes">Its size.</param>
/// <param name="Hash">SHA-256 of a large file, git's blob SHA-1 of a small one.</param>
/// <param name="IsLarge">Whether it is stored as a large file (LFS).</param>
public sealed record HubFile(string Path, long Bytes, string Hash, bool IsLarge);
