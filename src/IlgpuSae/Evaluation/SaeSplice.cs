using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

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
        var rows = Reshape.As(site.Scope, activation, Flat(shape));
        return Reshape.As(site.Scope, sae.Forward(site.Scope, rows, hooks, useErrorTerm), shape);
    });

    /// <summary>
    /// The two hooks that put a transcoder into a model: one reads, the other replaces what the model computed. For one model
    /// at a time.
    /// </summary>
    /// <param name="hookName">Full name of the hook it reads, reached before the other.</param>
    /// <param name="hookNameOut">Full name of the hook whose activations it gives.</param>
    /// <param name="sae">The transcoder, on the model's device.</param>
    /// <param name="useErrorTerm">
    /// Adds what the transcoder misses, as a constant, so that the model computes what it would without it unless
    /// <paramref name="hooks"/> change something.
    /// </param>
    /// <param name="hooks">Read and replace what passes the transcoder's observation points.</param>
    /// <exception cref="InvalidInputException">The SAE is no transcoder; during the pass: the hooks are reached in the other order.</exception>
    public static IReadOnlyList<Hook> Transcoder(string hookName, string hookNameOut, Sae sae, bool useErrorTerm = false, SaeHooks? hooks = null)
    {
        if (!sae.Config.IsTranscoder) throw new InvalidInputException($"splice: architecture {sae.Config.Architecture} is no transcoder; use SaeSplice.At");
        Tensor? output = null, clean = null;
        return
        [
            Hook.On(hookName, (activation, site) =>
            {
                var rows = Reshape.As(site.Scope, activation, Flat(activation.Shape));
                output = sae.Forward(site.Scope, rows, hooks);
                if (useErrorTerm)
                    using (new NoGradient(site.Scope)) clean = sae.Forward(site.Scope, rows);
                return null;
            }),
            Hook.On(hookNameOut, (activation, site) =>
            {
                if (output is null) throw new InvalidInputException($"splice: {hookNameOut} is reached before {hookName}; a transcoder gives what comes after its input");
                var y = Reshape.As(site.Scope, output, activation.Shape);
                output = null;
                if (!useErrorTerm) return y;
                Tensor error;
                using (new NoGradient(site.Scope)) error = Sae.Residual(site.Scope, activation, Reshape.As(site.Scope, clean!, activation.Shape));
                hooks?.Pass(SaeHooks.Error, ref error);
                return Add.Sum(site.Scope, y, error);
            }),
        ];
    }

    /// <summary>[batch, pos, everything else].</summary>
    private static Shape Flat(Shape shape) => [shape[0], shape[1], (int)(shape.Count / shape[0] / shape[1])];
}
