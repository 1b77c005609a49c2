using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>A model's parameters by name, and sorted into the places where the forward pass needs them.</summary>
internal sealed class ModelParameters : IDisposable
{
    internal ModelParameters(ModelSpec spec, Dictionary<string, Tensor> byName)
    {
        ByName = byName;
        Embed = byName["embed.W_E"];
        Positions = Get("pos_embed.W_pos");
        Blocks = Enumerable.Range(0, spec.NLayers).Select(l => new Block(this, $"blocks.{l}.")).ToArray();
        EmbedNorm = spec.EmbedNorm ? new Norm(this, "embed.ln") : null;
        Final = new Norm(this, "ln_final");
        Unembed = Get("unembed.W_U") ?? Embed;
        UnembedBias = Get("unembed.b_U");
    }

    internal Dictionary<string, Tensor> ByName { get; }

    internal Tensor Embed { get; }

    internal Tensor? Positions { get; }

    /// <summary>LayerNorm of the embeddings, where the model has one.</summary>
    internal Norm? EmbedNorm { get; }

    internal Block[] Blocks { get; }

    internal Norm Final { get; }

    /// <summary>[d_vocab, d_model]; the embedding itself where they are tied.</summary>
    internal Tensor Unembed { get; }

    internal Tensor? UnembedBias { get; }

    public void Dispose()
    {
        foreach (var t in ByName.Values) t.Dispose();
    }

    private Tensor? Get(string name) => ByName.GetValueOrDefault(name);

    internal sealed class Norm(ModelParameters all, string name)
    {
        /// <summary>Null where it was folded into what follows.</summary>
        internal Tensor? Weight { get; } = all.Get(name + ".w");

        internal Tensor? Bias { get; } = all.Get(name + ".b");
    }

    internal sealed class Block(ModelParameters all, string name)
    {
        internal Norm Ln1 { get; } = new(all, name + "ln1");

        internal Norm Ln2 { get; } = new(all, name + "ln2");

        internal Norm? Ln1Post { get; } = all.ByName.ContainsKey(name + "ln1_post.w") ? new Norm(all, name + "ln1_post") : null;

        internal Norm? Ln2Post { get; } = all.ByName.ContainsKey(name + "ln2_post.w") ? new Norm(all, name + "ln2_post") : null;

        internal Norm? QNorm { get; } = all.ByName.ContainsKey(name + "attn.q_norm.w") ? new Norm(all, name + "attn.q_norm") : null;

        internal Norm? KNorm { get; } = all.ByName.ContainsKey(name + "attn.k_norm.w") ? new Norm(all, name + "attn.k_norm") : null;

        internal Tensor WQ { get; } = all.ByName[name + "attn.W_Q"];

        internal Tensor WK { get; } = all.ByName[name + "attn.W_K"];

        internal Tensor WV { get; } = all.ByName[name + "attn.W_V"];

        internal Tensor WO { get; } = all.ByName[name + "attn.W_O"];

        internal Tensor? BQ { get; } = all.Get(name + "attn.b_Q");

        internal Tensor? BK { get; } = all.Get(name + "attn.b_K");

        internal Tensor? BV { get; } = all.Get(name + "attn.b_V");

        internal Tensor? BO { get; } = all.Get(name + "attn.b_O");

        internal Tensor? WGate { get; } = all.Get(name + "mlp.W_gate");

        internal Tensor? BGate { get; } = all.Get(name + "mlp.b_gate");

        internal Tensor WIn { get; } = all.ByName[name + "mlp.W_in"];

        internal Tensor? BIn { get; } = all.Get(name + "mlp.b_in");

        internal Tensor WOut { get; } = all.ByName[name + "mlp.W_out"];

        internal Tensor? BOut { get; } = all.Get(name + "mlp.b_out");
    }
}
