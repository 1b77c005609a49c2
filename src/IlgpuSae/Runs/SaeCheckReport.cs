using System.Text.Json.Nodes;

namespace IlgpuSae.Runs;

/// <summary>How an SAE did on the rows it was checked on.</summary>
/// <param name="L0">Mean number of active features a row.</param>
/// <param name="ExplainedVariance">1 - squared error / variance; at most 1, far below 0 where reconstructions are wild.</param>
public sealed record SaeCheckScore(double L0, double ExplainedVariance);

/// <summary>A mistake in how an SAE is loaded or used, and how the SAE does once it is undone.</summary>
/// <param name="Mistake">What is wrong, such as <c>b_dec is subtracted from the input and should not be</c>.</param>
/// <param name="Remedy">What to do.</param>
/// <param name="Score">How the SAE does then.</param>
public sealed record SaeCheckFinding(string Mistake, string Remedy, SaeCheckScore Score);

/// <summary>What <see cref="SaeCheck"/> found.</summary>
public sealed record SaeCheckReport
{
    /// <summary>Format of the SAE.</summary>
    public required string Format { get; init; }

    /// <summary>Hook it was checked on; null: it states none.</summary>
    public required string? HookName { get; init; }

    /// <summary>Rows it was checked on.</summary>
    public required int Rows { get; init; }

    /// <summary>Mean number of active features to expect; null: not known.</summary>
    public required double? ExpectedL0 { get; init; }

    /// <summary>How it does as it is loaded; null if it does not fit the hook.</summary>
    public required SaeCheckScore? AsLoaded { get; init; }

    /// <summary>Whether sparsity and reconstruction look right as it is loaded.</summary>
    public required bool LooksRight { get; init; }

    /// <summary>Why, in one line.</summary>
    public required string Reason { get; init; }

    /// <summary>The likely mistake; null if it looks right, or if none of those tried makes it right.</summary>
    public SaeCheckFinding? Likely { get; init; }

    /// <summary>Everything that was tried, in order.</summary>
    public required IReadOnlyList<SaeCheckFinding> Tried { get; init; }

    /// <summary>What the user ought to know.</summary>
    public required IReadOnlyList<string> Notes { get; init; }

    /// <summary>As JSON.</summary>
    public JsonObject ToJson() => new()
    {
        ["format"] = Format,
        ["hook_name"] = HookName,
        ["rows"] = Rows,
        ["expected_l0"] = ExpectedL0,
        ["as_loaded"] = AsLoaded is { } s ? Json(s) : null,
        ["looks_right"] = LooksRight,
        ["reason"] = Reason,
        ["likely"] = Likely is { } l ? Json(l) : null,
        ["tried"] = new JsonArray([.. Tried.Select(t => (JsonNode)Json(t))]),
        ["notes"] = new JsonArray([.. Notes.Select(n => (JsonNode)n)]),
    };

    private static JsonObject Json(SaeCheckScore s) => new() { ["l0"] = s.L0, ["explained_variance"] = double.IsFinite(s.ExplainedVariance) ? s.ExplainedVariance : null };

    private static JsonObject Json(SaeCheckFinding f)
    {
        var json = Json(f.Score);
        json["mistake"] = f.Mistake;
        json["remedy"] = f.Remedy;
        return json;
    }
}
