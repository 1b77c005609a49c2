using IlgpuSae.Kernels;
using IlgpuSae.Tensors;

namespace IlgpuSae.Autograd;

/// <summary>
/// Adam as PyTorch computes it, without weight decay: m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2,
/// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps). Kingma and Ba 2014, arXiv:1412.6980.
/// </summary>
public sealed class Adam : IDisposable
{
    private readonly (string Name, Tensor Parameter, Tensor M, Tensor V)[] _slots;
    private readonly double _beta1, _beta2, _epsilon;

    /// <summary>An optimiser whose moments are zero.</summary>
    /// <param name="parameters">F32 tensors by name; they stay the caller's.</param>
    /// <param name="beta1">Decay of the first moment, [0, 1).</param>
    /// <param name="beta2">Decay of the second moment, [0, 1).</param>
    /// <param name="epsilon">Added to the root.</param>
    public Adam(IEnumerable<KeyValuePair<string, Tensor>> parameters, double beta1 = 0.9, double beta2 = 0.999, double epsilon = 1e-8)
    {
        (_beta1, _beta2, _epsilon) = (beta1, beta2, epsilon);
        _slots = [.. parameters.Select(p => (p.Key, p.Value, Zeros(p.Value), Zeros(p.Value)))];
    }

    /// <summary>Updates made so far, t of the formula; set when a run is resumed.</summary>
    public long Steps { get; set; }

    /// <summary>The first moment of a parameter.</summary>
    /// <param name="name">Its name.</param>
    public Tensor FirstMoment(string name) => _slots.First(s => s.Name == name).M;

    /// <summary>The second moment of a parameter.</summary>
    /// <param name="name">Its name.</param>
    public Tensor SecondMoment(string name) => _slots.First(s => s.Name == name).V;

    /// <summary>One update of every parameter.</summary>
    /// <param name="gradients">F32, in the order of the parameters, of their shapes; null: that parameter and its moments rest.</param>
    /// <param name="lr">Learning rate.</param>
    /// <param name="gradientScale">Every gradient is multiplied by it first, as clipping asks.</param>
    public void Step(IReadOnlyList<Tensor?> gradients, double lr, float gradientScale = 1)
    {
        Steps++;
        for (var i = 0; i < _slots.Length; i++)
        {
            var (_, p, m, v) = _slots[i];
            if (gradients[i] is not { } gradient) continue;
            AdamStep.Update(p.Device, p, gradient, m, v, lr, _beta1, _beta2, _epsilon, Steps, gradientScale);
        }
    }

    /// <summary>Gives the moments' memory back.</summary>
    public void Dispose()
    {
        foreach (var (_, _, m, v) in _slots)
        {
            m.Dispose();
            v.Dispose();
        }
    }

    private static Tensor Zeros(Tensor like)
    {
        var t = new Tensor(like.Device, like.Shape);
        t.Clear();
        return t;
    }
}
