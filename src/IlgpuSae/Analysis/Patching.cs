using IlgpuSae.Autograd;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Tensors;

namespace IlgpuSae.Analysis;

/// <summary>Which part of an activation is patched at a time.</summary>
public enum PatchAxis
{
    /// <summary>All of it.</summary>
    Whole,

    /// <summary>One position; of scores and patterns, one query.</summary>
    Position,

    /// <summary>One head; only where the activation has heads.</summary>
    Head,

    /// <summary>One head at one position, in the order of the activation's axes.</summary>
    PositionAndHead,
}

/// <summary>A number that says how well a model does: from logits [batch, pos, d_vocab] a tensor [], made with kernels so that it has a gradient.</summary>
/// <param name="scope">Owns the result.</param>
/// <param name="logits">The logits.</param>
public delegate Tensor LogitMetric(TensorScope scope, Tensor logits);

/// <summary>Effects of patching one hook.</summary>
/// <param name="Hook">Full name of the hook.</param>
/// <param name="Shape">Shape of <paramref name="Effects"/>: [], [pos], [heads] or [pos, heads] ([heads, pos] of scores and patterns).</param>
/// <param name="Effects">What the metric gains over the corrupted run when this part of it comes from the clean run.</param>
public sealed record PatchEffect(string Hook, Shape Shape, float[] Effects);

/// <summary>Effects of patching, hook by hook.</summary>
/// <param name="CleanMetric">The metric of the clean run.</param>
/// <param name="CorruptedMetric">The metric of the corrupted run, to which effects are relative.</param>
/// <param name="Effects">One entry a hook, in the order of the forward pass.</param>
public sealed record PatchResult(float CleanMetric, float CorruptedMetric, IReadOnlyList<PatchEffect> Effects)
{
    /// <summary>The effects at a hook.</summary>
    /// <param name="hook">Full name.</param>
    /// <exception cref="InvalidInputException">It was not patched.</exception>
    public PatchEffect this[string hook] => Effects.FirstOrDefault(e => e.Hook == hook)
        ?? throw new InvalidInputException($"hook \"{hook}\" was not patched; patched were {string.Join(", ", Effects.Take(3).Select(e => e.Hook))}{(Effects.Count > 3 ? ", ..." : "")}");
}

/// <summary>
/// Which activations carry a difference between two prompts: activation patching runs the corrupted prompt once for every
/// part of every hook with that part taken from the clean run (TransformerLens' patching.py); attribution patching
/// estimates all of it from one forward and one backward pass, effect = sum of (clean - corrupted) * d metric / d
/// activation at the corrupted run (Nanda 2023; Syed et al. 2023, arXiv:2310.10348).
/// </summary>
public static class Patching
{
    /// <summary>Activation patching.</summary>
    /// <param name="model">The model.</param>
    /// <param name="clean">The run that activations are taken from: rows of tokens.</param>
    /// <param name="corrupted">The run that is patched: as many rows of the same length.</param>
    /// <param name="hooks">Names separated by commas, <c>*</c> for anything; see <see cref="HookNames.Select"/>.</param>
    /// <param name="metric">What is measured.</param>
    /// <param name="axis">How finely.</param>
    /// <param name="stop">Ends it between two runs.</param>
    /// <exception cref="InvalidInputException">The batches differ in shape, a hook is not known, or has no such axis.</exception>
    public static PatchResult Activations(
        HookedTransformer model, IReadOnlyList<int[]> clean, IReadOnlyList<int[]> corrupted, string hooks, LogitMetric metric,
        PatchAxis axis = PatchAxis.Whole, CancellationToken stop = default)
    {
        using var scope = new TensorScope(model.Device);
        var (points, good, bad) = Begin(model, scope, clean, corrupted, hooks, axis);
        var (logits, cache) = model.RunWithCache(scope, good, points.Contains);
        var cleanMetric = Measure(scope, metric, logits);
        var corruptedMetric = Measure(scope, metric, model.Forward(scope, bad));
        var effects = new List<PatchEffect>();
        foreach (var point in points.OrderBy(p => p.Index))
        {
            var source = cache[point.Name];
            var (view, shape) = Parts(point, source.Shape, axis);
            var values = new float[shape.Count];
            for (var i = 0; i < values.Length; i++)
            {
                stop.ThrowIfCancellationRequested();
                var part = i;
                using var run = new TensorScope(model.Device);
                var patch = Hook.On(point.Name, (x, site) => Replaced(site.Scope, x, source, view, part));
                values[i] = Measure(run, metric, model.Forward(run, bad, new ForwardOptions { Hooks = [patch] })) - corruptedMetric;
            }

            effects.Add(new PatchEffect(point.Name, shape, values));
        }

        return new PatchResult(cleanMetric, corruptedMetric, effects);
    }

    /// <summary>Attribution patching: the first-order estimate of <see cref="Activations"/>.</summary>
    /// <param name="model">The model.</param>
    /// <param name="clean">The run that activations are taken from: rows of tokens.</param>
    /// <param name="corrupted">The run that is patched: as many rows of the same length.</param>
    /// <param name="hooks">Names separated by commas, <c>*</c> for anything; see <see cref="HookNames.Select"/>.</param>
    /// <param name="metric">What is measured.</param>
    /// <param name="axis">How finely.</param>
    /// <exception cref="InvalidInputException">The batches differ in shape, a hook is not known, or has no such axis.</exception>
    public static PatchResult Attribution(
        HookedTransformer model, IReadOnlyList<int[]> clean, IReadOnlyList<int[]> corrupted, string hooks, LogitMetric metric, PatchAxis axis = PatchAxis.Whole)
    {
        using var scope = new TensorScope(model.Device);
        var (points, good, bad) = Begin(model, scope, clean, corrupted, hooks, axis);
        var (cleanLogits, cleanCache) = model.RunWithCache(scope, good, points.Contains);
        var cleanMetric = Measure(scope, metric, cleanLogits);
        using var tape = new Tape(scope);
        var (logits, cache) = model.RunWithCache(scope, bad, points.Contains, new ForwardOptions { Hooks = [Hook.Watch(points.Contains, tape)] });
        var value = metric(scope, logits);
        tape.Backward(value);
        var effects = new List<PatchEffect>();
        foreach (var point in points.OrderBy(p => p.Index))
        {
            var x = cache[point.Name];
            var (view, shape) = Parts(point, x.Shape, axis);
            float[] from = cleanCache[point.Name].ToArray<float>(), to = x.ToArray<float>(), gradient = tape.Gradient(x).ToArray<float>();
            var sums = new double[shape.Count];
            int n = view[1], inner = view[2];
            for (var i = 0; i < to.Length; i++)
            {
                // A masked score is -infinity in both runs: no difference, and no gradient.
                if (float.IsFinite(to[i]) && float.IsFinite(from[i])) sums[i / inner % n] += ((double)from[i] - to[i]) * gradient[i];
            }

            effects.Add(new PatchEffect(point.Name, shape, [.. sums.Select(s => (float)s)]));
        }

        return new PatchResult(cleanMetric, value.Scalar(), effects);
    }

    private static (HashSet<HookPoint> Points, Tensor Clean, Tensor Corrupted) Begin(
        HookedTransformer model, TensorScope scope, IReadOnlyList<int[]> clean, IReadOnlyList<int[]> corrupted, string hooks, PatchAxis axis)
    {
        Tensor good = HookedTransformer.Tokens(scope, clean), bad = HookedTransformer.Tokens(scope, corrupted);
        if (good.Shape != bad.Shape) throw new InvalidInputException($"patching: the clean batch is {good.Shape}, the corrupted {bad.Shape}; give rows of the same number and length");
        var points = model.Hooks.Select(hooks);
        foreach (var p in points) _ = Parts(p, p.ShapeFor(bad.Shape[0], bad.Shape[1]), axis);
        return ([.. points], good, bad);
    }

    /// <summary>
    /// The activation as [outer, parts, inner], and the shape of the parts. Axes of activations are [batch, pos, ...],
    /// [batch, pos, heads, width], or of scores and patterns [batch, heads, query, key].
    /// </summary>
    private static (int[] View, Shape Shape) Parts(HookPoint point, Shape shape, PatchAxis axis)
    {
        var square = point.Axes.Contains(HookPoint.KeyPosition);
        var hasHeads = square || point.Axes.Count == 4;
        if (axis is PatchAxis.Head or PatchAxis.PositionAndHead && !hasHeads)
            throw new InvalidInputException($"patching: {point} has no heads; patch it whole or by position");
        var (first, last) = axis switch
        {
            PatchAxis.Whole => (0, 0),
            PatchAxis.PositionAndHead => (1, 3),
            PatchAxis.Position => square ? (2, 3) : (1, 2),
            _ => square ? (1, 2) : (2, 3),
        };
        var dims = shape.Dims.ToArray();
        if (axis == PatchAxis.Whole) return ([1, 1, dims.Aggregate(1, (a, b) => a * b)], []);
        return ([Product(dims[..first]), Product(dims[first..last]), Product(dims[last..])], Shape.Create(dims.AsSpan(first, last - first)));

        static int Product(int[] n) => n.Aggregate(1, (a, b) => a * b);
    }

    /// <summary>A copy of x in which one part is the source's.</summary>
    private static Tensor Replaced(TensorScope scope, Tensor x, Tensor source, int[] view, int part)
    {
        var y = scope.New(x.Shape);
        y.CopyFrom(x);
        using Tensor target = y.Reshape(Shape.Create(view)), from = source.Reshape(Shape.Create(view));
        Positions.Write(target, Positions.Slice(scope, from, part, 1), part);
        return y;
    }

    private static float Measure(TensorScope scope, LogitMetric metric, Tensor logits) => metric(scope, logits).Scalar();
}
