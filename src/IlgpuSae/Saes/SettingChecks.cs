namespace IlgpuSae.Saes;

/// <summary>Checks of single settings; the message begins with the field's name in files.</summary>
internal static class SettingChecks
{
    /// <summary>A coefficient: finite and not negative.</summary>
    internal static void Coefficient(string field, double value)
    {
        if (!(value >= 0 && double.IsFinite(value))) throw new InvalidInputException($"{field}: {value} is not a number of at least 0");
    }

    /// <summary>A finite number above 0.</summary>
    internal static void Positive(string field, double value)
    {
        if (!(value > 0 && double.IsFinite(value))) throw new InvalidInputException($"{field}: {value} is not a positive number");
    }

    /// <summary>A number of steps.</summary>
    internal static void Steps(string field, long value)
    {
        if (value < 0) throw new InvalidInputException($"{field}: {value} is negative");
    }
}
