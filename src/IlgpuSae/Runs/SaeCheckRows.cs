using IlgpuSae.Evaluation;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Runs;

/// <summary>
/// Activations of a few contexts at the stated hook and at those nearby that are as wide, from one pass of the model;
/// and, for text, the same with BOS where it was left out or without it.
/// </summary>
internal sealed class SaeCheckRows : IDisposable
{
    /// <summary>Hooks of so many layers before and after the stated one are tried.</summary>
    private const int Reach = 2;

    private readonly LanguageModel _language;
    private readonly DataConfig _data;
    private readonly int _limit;
    private readonly Dictionary<string, float[]> _rows = new(StringComparer.Ordinal);
    private readonly Dictionary<string, float[]> _otherBos = new(StringComparer.Ordinal);
    private readonly List<bool> _first = [];
    private readonly SaeConfig _config;

    public SaeCheckRows(LanguageModel language, DataConfig data, SaeConfig config, int limit)
    {
        (_language, _data, _config, _limit) = (language, data, config, limit);
        var hooks = language.Model.Hooks;
        HookName = data.HookName;
        HookNameOut = config.IsTranscoder ? data.HookNameOut : null;
        Fits = IsAsWide(HookName, data.HookHeadIndex, config.DIn) && (!config.IsTranscoder || IsAsWide(HookNameOut, data.HookHeadIndexOut, config.OutputWidth));
        var layer = HookName is not null && hooks.Contains(HookName) ? hooks[HookName].Layer : null;
        Inputs = [.. Near(layer).Where(h => h != HookName && IsAsWide(h, data.HookHeadIndex, config.DIn))];
        Outputs = config.IsTranscoder ? [.. Near(layer).Where(h => h != HookNameOut && IsAsWide(h, data.HookHeadIndexOut, config.OutputWidth))] : [];
        var wanted = Inputs.Concat(Outputs).ToList();
        if (IsAsWide(HookName, data.HookHeadIndex, config.DIn)) wanted.Add(HookName!);
        if (IsAsWide(HookNameOut, data.HookHeadIndexOut, config.OutputWidth)) wanted.Add(HookNameOut!);
        if (wanted.Count == 0) throw new InvalidInputException($"the model has no hook of {config.DIn} numbers a token, which the SAE takes (d_in); is it another model's?");
        Read(data, [.. wanted.Distinct()], _rows, _first);
        MeanNorm = Fits ? NormOf(_rows[HookName!], config.DIn) : 0;
    }

    /// <summary>The stated hook; null: none is stated.</summary>
    public string? HookName { get; }

    /// <summary>The stated target of a transcoder.</summary>
    public string? HookNameOut { get; }

    /// <summary>Whether the stated hooks exist and are as wide as the SAE.</summary>
    public bool Fits { get; }

    /// <summary>Other hooks the SAE might be for.</summary>
    public IReadOnlyList<string> Inputs { get; }

    /// <summary>Other targets a transcoder might have.</summary>
    public IReadOnlyList<string> Outputs { get; }

    /// <summary>Rows read.</summary>
    public int Count => _first.Count;

    /// <summary>Mean norm of the activations at the stated hook.</summary>
    public double MeanNorm { get; }

    /// <summary>Whether contexts begin with a token that can be left out and still something remains.</summary>
    public bool CanSkipFirst => Fits && _first.Contains(true) && _first.Contains(false);

    /// <summary>Whether the same text can be read with BOS the other way.</summary>
    public bool CanFlipBos => Fits && _data.Text is not null && _language.Tokenizer.BosToken is not null;

    /// <summary>Whether contexts were made to begin with BOS.</summary>
    public bool PrependBos => _data.PrependBos;

    /// <summary>What the user ought to know about the data.</summary>
    public List<string> Notes { get; } = [];

    /// <summary>Inputs and targets for a trial.</summary>
    /// <param name="variant">The trial.</param>
    public (float[] X, float[] Target) Of(SaeCheckVariant variant)
    {
        var first = _first;
        var rows = _rows;
        if (variant.FlipBos)
        {
            if (_otherBos.Count == 0) Read(_data with { PrependBos = !_data.PrependBos }, HookNameOut is null ? [HookName!] : [HookName!, HookNameOut], _otherBos, []);
            rows = _otherBos;
        }

        var x = rows[variant.Hook ?? HookName!];
        var target = _config.IsTranscoder ? rows[variant.HookOut ?? HookNameOut!] : x;
        return variant.SkipFirst ? (Without(x, first), Without(target, first)) : (x, target);
    }

    /// <summary>Mean Euclidean norm of rows.</summary>
    /// <param name="rows">Row-major.</param>
    /// <param name="width">Numbers a row.</param>
    public static double NormOf(float[] rows, int width)
    {
        double sum = 0;
        for (var at = 0; at < rows.Length; at += width)
        {
            double squares = 0;
            foreach (var v in rows.AsSpan(at, width)) squares += (double)v * v;
            sum += Math.Sqrt(squares);
        }

        return sum / (rows.Length / width);
    }

    /// <inheritdoc/>
    public void Dispose() => _rows.Clear();

    private bool IsAsWide(string? hook, int? head, int width)
    {
        var hooks = _language.Model.Hooks;
        if (hook is null || !hooks.Contains(hook)) return false;
        var shape = hooks[hook].ShapeFor(1, 1);
        return shape.Rank >= 3 && (head is null || shape.Rank == 4 && head < shape[2]) && new HookRows(shape, head).Width == width;
    }

    private IEnumerable<string> Near(int? layer) => _language.Model.Hooks.All
        .Where(h => !h.OnRequest && (layer is not { } l || h.Layer is not { } own || Math.Abs(own - l) <= Reach))
        .Where(h => !h.Name.Contains("hook_scale", StringComparison.Ordinal) && !h.Name.Contains("attn_scores", StringComparison.Ordinal) && !h.Name.Contains("hook_pattern", StringComparison.Ordinal))
        .Select(h => h.Name);

    private void Read(DataConfig data, IReadOnlyList<string> hooks, Dictionary<string, float[]> rows, List<bool> first)
    {
        using var tokens = _language.OpenTokens(data, data.Contexts);
        if (tokens.ContextSize > _language.Model.Spec.NCtx)
            throw new InvalidInputException($"context_size: {tokens.ContextSize} tokens are more than the model's context of {_language.Model.Spec.NCtx} (n_ctx)");
        var found = hooks.ToDictionary(h => h, _ => new List<float>(), StringComparer.Ordinal);
        var count = 0;
        while (count < _limit)
        {
            var ids = tokens.NextBatch(Math.Max(1, Math.Min(8, _limit / tokens.ContextSize)), wrap: false);
            if (ids.Length == 0) break;
            using var scope = new TensorScope(_language.Model.Device);
            var cache = _language.Model.Activations(scope, scope.From<int>(ids, [ids.Length / tokens.ContextSize, tokens.ContextSize]), string.Join(',', hooks));
            foreach (var hook in hooks)
            {
                var activation = cache[hook];
                var head = hook == HookNameOut ? data.HookHeadIndexOut : data.HookHeadIndex;
                found[hook].AddRange(new HookRows(activation.Shape, head).Read(scope, activation, null).ToArray<float>());
            }

            for (var i = 0; i < ids.Length; i++) first.Add(i % tokens.ContextSize == 0);
            count += ids.Length;
        }

        if (count == 0) throw new InvalidInputException($"{tokens.Name}: there is no context to check the SAE on");
        foreach (var (hook, values) in found) rows[hook] = [.. values];
        foreach (var note in tokens.Notes)
            if (!Notes.Contains(note)) Notes.Add(note);
    }

    private static float[] Without(float[] rows, List<bool> first)
    {
        var width = rows.Length / first.Count;
        var kept = new List<float>(rows.Length);
        for (var r = 0; r < first.Count; r++)
            if (!first[r]) kept.AddRange(rows.AsSpan(r * width, width));
        return [.. kept];
    }
}
