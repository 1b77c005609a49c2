using System.Globalization;
using System.Text.RegularExpressions;

namespace IlgpuSae.Models;

/// <summary>All hooks of a model: names, shapes, layers; checks names and finds near ones. Needs no weights.</summary>
public sealed class HookNames
{
    private readonly List<HookPoint> _all = [];
    private readonly Dictionary<string, HookPoint> _byName = new(StringComparer.Ordinal);

    /// <summary>The hooks of a model.</summary>
    /// <param name="spec">The model.</param>
    public HookNames(ModelSpec spec)
    {
        Spec = spec;
        int b = HookPoint.Batch, p = HookPoint.Position;
        if (spec.EmbedNorm) EmbedNorm = new NormHooks(this, "embed.ln", null);
        Embed = Add("hook_embed", null, false, b, p, spec.DModel);
        if (spec.Positions == PositionKind.Learned) PosEmbed = Add("hook_pos_embed", null, false, b, p, spec.DModel);
        Blocks = Enumerable.Range(0, spec.NLayers).Select(l => new BlockHooks(this, l)).ToArray();
        Final = new NormHooks(this, "ln_final", null);
    }

    /// <summary>The model.</summary>
    public ModelSpec Spec { get; }

    /// <summary>Every hook, in the order in which the forward pass reaches them.</summary>
    public IReadOnlyList<HookPoint> All => _all;

    internal NormHooks? EmbedNorm { get; }

    internal HookPoint Embed { get; }

    internal HookPoint? PosEmbed { get; }

    internal BlockHooks[] Blocks { get; }

    internal NormHooks Final { get; }

    /// <summary>The hook of a name.</summary>
    /// <param name="name">Its full name.</param>
    /// <exception cref="InvalidInputException">No such hook; the message suggests near names.</exception>
    public HookPoint this[string name] => _byName.TryGetValue(name, out var h) ? h : throw Unknown(name);

    /// <summary>Whether a hook exists.</summary>
    /// <param name="name">Its full name.</param>
    public bool Contains(string name) => _byName.ContainsKey(name);

    /// <summary>
    /// The full name for a short one, as TransformerLens' get_act_name: ("resid_pre", 8) is <c>blocks.8.hook_resid_pre</c>,
    /// ("z", 3) <c>blocks.3.attn.hook_z</c>, ("ln1.normalized", 0) <c>blocks.0.ln1.hook_normalized</c>, ("embed") <c>hook_embed</c>.
    /// </summary>
    /// <param name="shortName">Short or full name.</param>
    /// <param name="layer">The block; null outside blocks.</param>
    /// <exception cref="InvalidInputException">No such hook.</exception>
    public string Full(string shortName, int? layer = null)
    {
        if (layer is null && Contains(shortName)) return shortName;
        var dot = shortName.LastIndexOf('.');
        var hooked = dot < 0 ? "hook_" + shortName : $"{shortName[..dot]}.hook_{shortName[(dot + 1)..]}";
        var prefix = layer is { } l ? string.Create(CultureInfo.InvariantCulture, $"blocks.{l}.") : "";
        string[] candidates = [prefix + shortName, prefix + hooked, $"{prefix}attn.{hooked}", $"{prefix}attn.hook_attn_{shortName}", $"{prefix}mlp.{hooked}"];
        return Array.Find(candidates, Contains) ?? throw Unknown(prefix + hooked);
    }

    /// <summary>
    /// Hooks chosen by text: names separated by commas, where <c>*</c> stands for anything; <c>all</c> is every hook that
    /// costs no extra work. A pattern leaves out hooks that do (<see cref="HookPoint.OnRequest"/>) unless it matches no other.
    /// </summary>
    /// <param name="patterns">Such as <c>blocks.*.hook_resid_post,ln_final.hook_normalized</c>.</param>
    /// <returns>The hooks, in the order of the forward pass, each once.</returns>
    /// <exception cref="InvalidInputException">A name that matches nothing; the message suggests near ones.</exception>
    public IReadOnlyList<HookPoint> Select(string patterns)
    {
        var chosen = new HashSet<HookPoint>();
        foreach (var part in patterns.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            if (part == "all")
            {
                chosen.UnionWith(_all.Where(h => !h.OnRequest));
            }
            else if (part.Contains('*', StringComparison.Ordinal))
            {
                var pattern = new Regex("^" + Regex.Escape(part).Replace("\\*", ".*", StringComparison.Ordinal) + "$", RegexOptions.CultureInvariant);
                var matches = _all.Where(h => pattern.IsMatch(h.Name)).ToList();
                if (matches.Count == 0) throw Unknown(part);
                // blocks.0.* is not to cost n_heads times the work: what is on request must be asked for.
                var free = matches.Where(h => !h.OnRequest).ToList();
                chosen.UnionWith(free.Count > 0 ? free : matches);
            }
            else
            {
                chosen.Add(this[part]);
            }
        }

        if (chosen.Count == 0) throw new InvalidInputException("hooks: no name given; give names separated by commas, or \"all\"");
        return chosen.OrderBy(h => h.Index).ToList();
    }

    /// <summary>
    /// The layer to stop at so that a hook is still reached (TransformerLens' stop_at_layer): 9 for
    /// <c>blocks.8.hook_resid_pre</c>, 0 for the embeddings, null for the final normalisation.
    /// </summary>
    /// <param name="name">Full name of a hook.</param>
    /// <exception cref="InvalidInputException">No such hook.</exception>
    public int? StopLayerFor(string name)
    {
        var h = this[name];
        if (h.Layer is { } l) return l + 1;
        return h.Index <= (PosEmbed ?? Embed).Index ? 0 : null;
    }

    internal HookPoint Add(string name, int? layer, bool onRequest, params int[] axes)
    {
        var h = new HookPoint(name, layer, _all.Count, onRequest, axes);
        _all.Add(h);
        _byName.Add(name, h);
        return h;
    }

    internal InvalidInputException Unknown(string name)
    {
        // A right last part under a wrong path (blocks.1.hook_z) counts for more than its letters.
        var last = name[(name.LastIndexOf('.') + 1)..];
        var near = _all.Select(h => (h.Name, Distance: EditDistance(name, h.Name) / (h.Name.EndsWith("." + last, StringComparison.Ordinal) ? 2 : 1)))
            .OrderBy(h => h.Distance).Take(3)
            .Where(h => h.Distance <= Math.Max(3, name.Length / 2) || h.Name.EndsWith("." + last, StringComparison.Ordinal)).Select(h => h.Name).ToList();
        var end = Spec.NLayers - 1;
        var hint = LayerOf(name) is { } l && l > end ? $"; the model's blocks are 0..{end}" : "";
        return new InvalidInputException(near.Count == 0
            ? $"hook \"{name}\" does not exist in {Spec.Architecture}{hint}; for example: {_all[0].Name}, blocks.{end}.hook_resid_post"
            : $"hook \"{name}\" does not exist in {Spec.Architecture}{hint}; near: {string.Join(", ", near)}");
    }

    /// <summary>The number after "blocks."; null if there is none.</summary>
    private static int? LayerOf(string name)
    {
        var parts = name.Split('.');
        return parts.Length > 1 && parts[0] == "blocks" && int.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out var l) ? l : null;
    }

    /// <summary>Levenshtein's distance: insertions, deletions and substitutions of one character.</summary>
    private static int EditDistance(string a, string b)
    {
        var row = Enumerable.Range(0, b.Length + 1).ToArray();
        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= b.Length; j++)
            {
                var substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(substituted, 1 + Math.Min(row[j], row[j - 1]));
            }
        }

        return row[^1];
    }

    /// <summary>Hooks of one normalisation.</summary>
    internal sealed class NormHooks
    {
        /// <summary>Hooks of a normalisation of rows whose axes are <paramref name="row"/>; empty: [d_model].</summary>
        internal NormHooks(HookNames names, string prefix, int? layer, params int[] row)
        {
            if (row.Length == 0) row = [names.Spec.DModel];
            Scale = names.Add(prefix + ".hook_scale", layer, false, [HookPoint.Batch, HookPoint.Position, .. row[..^1], 1]);
            Normalized = names.Add(prefix + ".hook_normalized", layer, false, [HookPoint.Batch, HookPoint.Position, .. row]);
        }

        internal HookPoint Scale { get; }

        internal HookPoint Normalized { get; }
    }

    /// <summary>Hooks of one block; the constructor's order is that of the forward pass.</summary>
    internal sealed class BlockHooks
    {
        internal BlockHooks(HookNames names, int layer)
        {
            var s = names.Spec;
            var prefix = string.Create(CultureInfo.InvariantCulture, $"blocks.{layer}.");
            int b = HookPoint.Batch, p = HookPoint.Position, k = HookPoint.KeyPosition;
            HookPoint Add(string name, params int[] axes) => names.Add(prefix + name, layer, false, axes);

            HookPoint OnRequest(string name, params int[] axes) => names.Add(prefix + name, layer, true, axes);

            ResidPre = Add("hook_resid_pre", b, p, s.DModel);
            // TransformerLens has no attn_in under grouped heads either: queries and keys could not share it.
            if (s.NKvHeads == s.NHeads) AttnIn = OnRequest("hook_attn_in", b, p, s.NHeads, s.DModel);
            QInput = OnRequest("hook_q_input", b, p, s.NHeads, s.DModel);
            KInput = OnRequest("hook_k_input", b, p, s.NKvHeads, s.DModel);
            VInput = OnRequest("hook_v_input", b, p, s.NKvHeads, s.DModel);
            var behind = s.NormPlacement == NormPlacement.Behind;
            NormHooks? ln1 = behind ? null : new NormHooks(names, prefix + "ln1", layer);
            Q = Add("attn.hook_q", b, p, s.NHeads, s.DHead);
            K = Add("attn.hook_k", b, p, s.NKvHeads, s.DHead);
            V = Add("attn.hook_v", b, p, s.NKvHeads, s.DHead);
            if (s.QueryKeyNorm != QueryKeyNorm.None)
            {
                var all = s.QueryKeyNorm == QueryKeyNorm.AllHeads;
                QNorm = new NormHooks(names, prefix + "attn.q_norm", layer, all ? [s.NHeads * s.DHead] : [s.NHeads, s.DHead]);
                KNorm = new NormHooks(names, prefix + "attn.k_norm", layer, all ? [s.NKvHeads * s.DHead] : [s.NKvHeads, s.DHead]);
            }

            if (s.Positions == PositionKind.Rotary)
            {
                RotQ = Add("attn.hook_rot_q", b, p, s.NHeads, s.DHead);
                RotK = Add("attn.hook_rot_k", b, p, s.NKvHeads, s.DHead);
            }

            Scores = Add("attn.hook_attn_scores", b, s.NHeads, p, k);
            Pattern = Add("attn.hook_pattern", b, s.NHeads, p, k);
            Z = Add("attn.hook_z", b, p, s.NHeads, s.DHead);
            Result = OnRequest("attn.hook_result", b, p, s.NHeads, s.DModel);
            Ln1 = ln1 ?? new NormHooks(names, prefix + "ln1", layer);
            if (s.PostNorms) Ln1Post = new NormHooks(names, prefix + "ln1_post", layer);
            AttnOut = Add("hook_attn_out", b, p, s.DModel);
            if (!s.ParallelBlock) ResidMid = Add("hook_resid_mid", b, p, s.DModel);
            MlpIn = OnRequest("hook_mlp_in", b, p, s.DModel);
            NormHooks? ln2 = behind ? null : new NormHooks(names, prefix + "ln2", layer);
            MlpPre = Add("mlp.hook_pre", b, p, s.DMlp);
            if (s.GatedMlp) MlpPreLinear = Add("mlp.hook_pre_linear", b, p, s.DMlp);
            MlpPost = Add("mlp.hook_post", b, p, s.DMlp);
            Ln2 = ln2 ?? new NormHooks(names, prefix + "ln2", layer);
            if (s.PostNorms) Ln2Post = new NormHooks(names, prefix + "ln2_post", layer);
            MlpOut = Add("hook_mlp_out", b, p, s.DModel);
            ResidPost = Add("hook_resid_post", b, p, s.DModel);
        }

        internal HookPoint ResidPre { get; }

        internal HookPoint? AttnIn { get; }

        internal HookPoint QInput { get; }

        internal HookPoint KInput { get; }

        internal HookPoint VInput { get; }

        internal NormHooks Ln1 { get; }

        internal HookPoint Q { get; }

        internal HookPoint K { get; }

        internal HookPoint V { get; }

        internal NormHooks? QNorm { get; }

        internal NormHooks? KNorm { get; }

        internal HookPoint? RotQ { get; }

        internal HookPoint? RotK { get; }

        internal HookPoint Scores { get; }

        internal HookPoint Pattern { get; }

        internal HookPoint Z { get; }

        internal HookPoint Result { get; }

        internal NormHooks? Ln1Post { get; }

        internal HookPoint AttnOut { get; }

        internal HookPoint? ResidMid { get; }

        internal HookPoint MlpIn { get; }

        internal NormHooks Ln2 { get; }

        internal HookPoint MlpPre { get; }

        internal HookPoint? MlpPreLinear { get; }

        internal HookPoint MlpPost { get; }

        internal NormHooks? Ln2Post { get; }

        internal HookPoint MlpOut { get; }

        internal HookPoint ResidPost { get; }
    }
}
