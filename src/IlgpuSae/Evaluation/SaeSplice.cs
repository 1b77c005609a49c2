using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;

namespace IlgpuSae.Evaluation;

/// <summary>An SAE put into a model in place of what passes a hook.</summary>
public static class SaeSplice
{
    /// <summary>The hook that does it: give it to the model's forward pass.</summary>
    /// <param name="hookName">Full name of the hook.</param>
    /// <param name="sae">The SAE, on the model's device.</param>
    /// <param name="useErrorTerm">
    /// Adds what the SAE misses, so that the model computes what it would without the SAE unless <paramref name="hooks"/>
    /// change something.
    /// </param>
    /// <param name="hooks">Read and replace what passes the SAE's observation points.</param>
    public static Hook At(string hookName, Sae sae, bool useErrorTerm = false, SaeHooks? hooks = null) => Hook.On(hookName, (activation, site) =>
    {
        var shape = activation.Shape;
        var mergesHeads = sae.Config.ReshapeActivations == ReshapeActivations.HookZ;
        if (shape.Rank <= 3 || mergesHeads) return sae.Forward(site.Scope, activation, hooks, useErrorTerm);
        var rows = Reshape.As(site.Scope, activation, [shape[0], shape[1], (int)(shape.Count / shape[0] / shape[1])]);
        return Reshape.As(site.Scope, sae.Forward(site.Scope, rows, hooks, useErrorTerm), shape);
    });
}
