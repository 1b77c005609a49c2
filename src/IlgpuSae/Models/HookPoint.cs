using System.Globalization;
using IlgpuSae.Tensors;

namespace IlgpuSae.Models;

/// <summary>
/// A named place in a model where activations are read, replaced or differentiated, under TransformerLens' name and with
/// its shape.
/// </summary>
public sealed class HookPoint
{
    /// <summary>Stands for the batch in <see cref="Axes"/>.</summary>
    public const int Batch = -1;

    /// <summary>Stands for the positions of the tokens given in <see cref="Axes"/>.</summary>
    public const int Position = -2;

    /// <summary>Stands for the positions that can be attended to in <see cref="Axes"/>.</summary>
    public const int KeyPosition = -3;

    internal HookPoint(string name, int? layer, int index, bool onRequest, params int[] axes)
    {
        Name = name;
        Layer = layer;
        Index = index;
        OnRequest = onRequest;
        Axes = axes;
    }

    /// <summary>As in TransformerLens: <c>blocks.8.hook_resid_pre</c>.</summary>
    public string Name { get; }

    /// <summary>The block it lies in; null for the embeddings and the final normalisation.</summary>
    public int? Layer { get; }

    /// <summary>Place in the order in which the forward pass reaches the hooks.</summary>
    public int Index { get; }

    /// <summary>Costs extra work, so that "all hooks" leaves it out: <c>attn.hook_result</c>.</summary>
    public bool OnRequest { get; }

    /// <summary>Sizes, or <see cref="Batch"/>, <see cref="Position"/>, <see cref="KeyPosition"/>.</summary>
    public IReadOnlyList<int> Axes { get; }

    /// <summary>
    /// Numbers a token: d_model for the residual stream, heads * d_head for <c>hook_z</c>; 0 where the activation
    /// belongs to pairs of tokens (scores and pattern).
    /// </summary>
    public int Width => Axes[1] == Position ? Axes.Skip(2).Aggregate(1, (n, a) => n * a) : 0;

    /// <summary>Shape for given sizes.</summary>
    /// <param name="batch">Number of sequences.</param>
    /// <param name="positions">Tokens a sequence.</param>
    /// <param name="keys">Tokens that can be attended to, if a cache holds more; 0: <paramref name="positions"/>.</param>
    public Shape ShapeFor(int batch, int positions, int keys = 0)
    {
        var dims = new int[Axes.Count];
        for (var i = 0; i < dims.Length; i++)
            dims[i] = Axes[i] switch { Batch => batch, Position => positions, KeyPosition => keys == 0 ? positions : keys, var n => n };
        return Shape.Create(dims);
    }

    /// <summary>As <c>blocks.8.hook_resid_pre [batch, pos, 768]</c>.</summary>
    public override string ToString()
    {
        var pair = Axes.Contains(KeyPosition);
        var sizes = Axes.Select(a => a switch
        {
            Batch => "batch",
            Position => pair ? "query" : "pos",
            KeyPosition => "key",
            _ => a.ToString(CultureInfo.InvariantCulture),
        });
        return $"{Name} [{string.Join(", ", sizes)}]";
    }
}
