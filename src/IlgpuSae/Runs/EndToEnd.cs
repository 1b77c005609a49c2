using System.Runtime.CompilerServices;
using IlgpuSae.Activations;
using IlgpuSae.Evaluation;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Training;

namespace IlgpuSae.Runs;

/// <summary>
/// Trains an SAE through the model it stands in. As a source it hands out the activations of whole contexts, in the
/// text's order; as an extension of the step it puts the reconstructions back, runs the model to its end and adds kl_loss = KL of
/// the clean and the spliced predictions, or ce_loss, mean over all tokens. The gradient comes back through the layers
/// after the hook; nothing but the SAE is trained. Positions that are left out keep their own activations.
/// </summary>
/// <param name="language">The model.</param>
/// <param name="tokens">What it reads.</param>
/// <param name="data">Hook, positions, exclusions.</param>
/// <param name="config">Which loss, and weights.</param>
internal sealed class EndToEnd(LanguageModel language, TokenSource tokens, DataConfig data, EndToEndConfig config) : IActivationSource, IStepExtension
{
    private readonly HookedTransformer _model = language.Model;
    private readonly int[] _positions = data.SeqposSlice.Positions(tokens.ContextSize);
    private readonly HashSet<int> _excluded = [.. language.Excluded(data.ExcludeSpecialTokens)];

    /// <summary>What the rows of each batch belong to; forgotten with them.</summary>
    private readonly ConditionalWeakTable<Tensor, Batch> _batches = [];

    private string Hook => data.HookName!;

    /// <inheritdoc/>
    public int Width { get; } = new HookRows(language.Model.Hooks[data.HookName!].ShapeFor(1, 1), data.HookHeadIndex).Width;

    /// <summary>Rows of a batch: those of as many whole contexts as fit, at least one.</summary>
    /// <param name="rows">How many are wanted.</param>
    public int BatchRows(int rows) => Math.Max(1, rows / _positions.Length) * _positions.Length;

    /// <inheritdoc/>
    /// <exception cref="InvalidInputException">The corpus is empty, or every token is excluded.</exception>
    public Tensor? Next(TensorScope scope, int rows)
    {
        for (var tries = 0; tries < 100; tries++)
        {
            var ids = tokens.NextBatch(Math.Max(1, rows / _positions.Length));
            if (ids.Length == 0) return null;
            var kept = Kept(ids);
            if (kept is []) continue;
            var (logits, activation) = Clean(scope, ids);
            var x = new HookRows(activation.Shape, data.HookHeadIndex).Read(scope, activation, kept);
            _batches.Add(x, new Batch(ids, kept, scope, logits, activation));
            return x;
        }

        throw new InvalidInputException($"exclude_special_tokens: {_excluded.Count} excluded ids leave no token of 100 batches; exclude fewer");
    }

    /// <inheritdoc/>
    public TrainingPass Extend(StepContext step, TrainingPass pass)
    {
        if (!_batches.TryGetValue(step.Rows, out var batch))
            throw new InvalidInputException("e2e_loss: the rows of the step are not those of the model's contexts");
        var scope = step.Scope;
        Tensor logits, activation, ids;
        using (new NoGradient(scope))
        {
            // Rows that were looked at before are served in another scope than they were made in.
            (logits, activation) = ReferenceEquals(batch.Scope, scope) ? (batch.Logits, batch.Activation) : Clean(scope, batch.Ids);
            ids = Tokens(scope, batch.Ids);
        }

        var y = step.Trainer.ActivationScale is { } s ? Scale.By(scope, pass.Reconstruction, (float)(1 / s)) : pass.Reconstruction;
        var spliced = new HookRows(activation.Shape, data.HookHeadIndex).Write(scope, activation, y, batch.Kept);
        var predictions = _model.Forward(scope, ids, new ForwardOptions { Hooks = [Models.Hook.On(Hook, (_, _) => spliced)] });
        var loss = config.E2eLoss == EndToEndLoss.Kl ? KlDivergence.PerToken(scope, logits, predictions) : CrossEntropy.PerToken(scope, predictions, ids);
        return With(scope, pass, config.E2eLoss == EndToEndLoss.Kl ? "kl_loss" : "ce_loss", Reduce.Mean(scope, loss));
    }

    /// <summary>The pass with the loss added and mse_loss weighted.</summary>
    private TrainingPass With(TensorScope scope, TrainingPass pass, string name, Tensor value)
    {
        var plain = pass.Losses.First(l => l.Name == "mse_loss").Value;
        List<(string Name, Tensor Value)> losses =
        [
            .. pass.Losses.Select(l => l.Name == "mse_loss" ? (l.Name, Scale.By(scope, l.Value, (float)config.E2eMseCoefficient)) : l),
            (name, Scale.By(scope, value, (float)config.E2eCoefficient)),
        ];
        var total = losses[0].Value;
        foreach (var (_, l) in losses.Skip(1)) total = Add.Sum(scope, total, l);
        return pass with { Losses = losses, Total = total, SquaredError = pass.SquaredError ?? plain };
    }

    private (Tensor Logits, Tensor Activation) Clean(TensorScope scope, int[] ids)
    {
        var (logits, cache) = _model.RunWithCache(scope, Tokens(scope, ids), Hook);
        return (logits, cache[Hook]);
    }

    private Tensor Tokens(TensorScope scope, int[] ids) => scope.From<int>(ids, [ids.Length / tokens.ContextSize, tokens.ContextSize]);

    /// <summary>Tokens whose activations are trained on, ascending; null: all.</summary>
    private int[]? Kept(int[] ids)
    {
        if (_positions.Length == tokens.ContextSize && !Array.Exists(ids, _excluded.Contains)) return null;
        var first = Enumerable.Range(0, ids.Length / tokens.ContextSize).Select(c => c * tokens.ContextSize);
        return [.. first.SelectMany(c => _positions.Select(p => c + p)).Where(t => !_excluded.Contains(ids[t])).Order()];
    }

    private sealed record Batch(int[] Ids, int[]? Kept, TensorScope Scope, Tensor Logits, Tensor Activation);
}
