using TorchSharp.Modules;
using static TorchSharp.torch;

namespace IlgpuSae.PeerBenchmarks;

/// <summary>
/// SAELens' training step as a user of TorchSharp writes it: dense activations, autograd, clipping of the gradients'
/// norm, torch.optim.Adam. W_enc is [d_in, d_sae] as in SAELens. Statistics and schedules are left out.
/// </summary>
internal sealed class TorchSae : IDisposable
{
    private readonly int _k;
    private readonly float _l1;
    private readonly optim.Optimizer _adam;

    /// <summary>A TopK SAE if <paramref name="k"/> is positive, else a ReLU SAE with the L1 penalty.</summary>
    public TorchSae(Tensor wEnc, Tensor bEnc, Tensor wDec, int k, float l1)
    {
        (_k, _l1) = (k, l1);
        WEnc = new Parameter(wEnc.clone());
        BEnc = new Parameter(bEnc.clone());
        WDec = new Parameter(wDec.clone());
        BDec = new Parameter(zeros(wDec.shape[1]));
        _adam = optim.Adam([WEnc, BEnc, WDec, BDec], lr: 3e-4, beta1: 0.9, beta2: 0.999);
    }

    public Parameter WEnc { get; }

    public Parameter BEnc { get; }

    public Parameter WDec { get; }

    public Parameter BDec { get; }

    /// <summary>One training step; returns the loss.</summary>
    public float Step(Tensor x)
    {
        using var scope = NewDisposeScope();
        _adam.zero_grad();
        var pre = addmm(BEnc, x - BDec, WEnc, 1f, 1f);
        Tensor acts;
        if (_k > 0)
        {
            var (values, indices) = topk(pre, _k, dim: -1, sorted: false);
            acts = zeros_like(pre).scatter(-1, indices, values.relu());
        }
        else
        {
            acts = pre.relu();
        }

        var reconstruction = addmm(BDec, acts, WDec, 1f, 1f);
        var loss = (reconstruction - x).pow(2).sum(-1).mean();
        if (_k == 0) loss += _l1 * (acts * WDec.norm(1)).norm(dim: -1, keepdim: false, p: 1).mean();
        loss.backward();
        nn.utils.clip_grad_norm_([WEnc, BEnc, WDec, BDec], 1.0);
        _adam.step();
        return loss.item<float>();
    }

    public void Dispose()
    {
        _adam.Dispose();
        foreach (var p in new[] { WEnc, BEnc, WDec, BDec }) p.Dispose();
    }
}
