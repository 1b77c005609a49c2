namespace IlgpuSae.Saes;

/// <summary>
/// Marks a setting that SAELens 6.18 does not have: files leave it out while it has its default, so that they hold exactly
/// SAELens' fields unless the setting is used.
/// </summary>
[AttributeUsage(AttributeTargets.Property)]
public sealed class LeftOutByDefaultAttribute : Attribute;
