using IlgpuSae.Kernels;

namespace IlgpuSae.Analysis;

/// <summary>Metrics for <see cref="Patching"/> and for gradients: combinations of logits, and the loss.</summary>
public static class LogitMetrics
{
    /// <summary>Mean over the rows of logit(right) - logit(wrong) at the last position: TransformerLens' logit difference.</summary>
    /// <param name="right">The right answer's token, one a row.</param>
    /// <param name="wrong">The wrong answer's, one a row.</param>
    /// <exception cref="InvalidInputException">Different numbers of tokens; or, when measuring, of rows, or a token outside the vocabulary.</exception>
    public static LogitMetric Difference(IReadOnlyList<int> right, IReadOnlyList<int> wrong)
    {
        if (right.Count != wrong.Count || right.Count == 0)
            throw new InvalidInputException($"logit difference: {right.Count} right answers and {wrong.Count} wrong ones; give one of each a row");
        return (scope, logits) =>
        {
            int batch = logits.Shape[0], last = logits.Shape[1] - 1, vocabulary = logits.Shape[2];
            if (batch != right.Count) throw new InvalidInputException($"logit difference: {right.Count} answers for {batch} rows");
            var weights = new float[(long)batch * vocabulary];
            for (var b = 0; b < batch; b++)
            {
                foreach (var (token, sign) in new[] { (right[b], 1f), (wrong[b], -1f) })
                {
                    if ((uint)token >= (uint)vocabulary) throw new InvalidInputException($"logit difference: token {token} of row {b} is not in 0..{vocabulary - 1}");
                    weights[((long)b * vocabulary) + token] += sign / batch;
                }
            }

            var seen = Positions.Slice(scope, logits, last, 1);
            return Reduce.Sum(scope, Multiply.Elementwise(scope, seen, scope.From<float>(weights, seen.Shape)));
        };
    }

    /// <summary>Any linear combination: the sum of weights * logits.</summary>
    /// <param name="weights">As many as logits, [batch, pos, d_vocab].</param>
    public static LogitMetric Combination(float[] weights) => (scope, logits) => weights.Length == logits.Count
        ? Reduce.Sum(scope, Multiply.Elementwise(scope, logits, scope.From<float>(weights, logits.Shape)))
        : throw new InvalidInputException($"logit combination: {weights.Length} weights for logits {logits.Shape}");

    /// <summary>Mean cross-entropy of the next token, in nats.</summary>
    /// <param name="tokens">The tokens that the logits are to foretell, [batch, pos].</param>
    public static LogitMetric Loss(IReadOnlyList<int[]> tokens) => (scope, logits) =>
        Reduce.Mean(scope, CrossEntropy.PerToken(scope, logits, Models.HookedTransformer.Tokens(scope, tokens)));
}
