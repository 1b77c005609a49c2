using IlgpuSae.Tensors;

namespace IlgpuSae.Autograd;

/// <summary>
/// Reverse-mode automatic differentiation over kernels. Watch the tensors whose gradients are wanted, run the
/// computation in the tape's scope, then call <see cref="Backward(Tensor)"/>. Only what depends on a watched tensor
/// is recorded, and gradients are summed in the reverse order of recording, so the same program gives the same bytes.
/// </summary>
public sealed class Tape : IRecorder, IDisposable
{
    private readonly TensorScope _scope;
    private readonly IRecorder? _outer;
    private readonly HashSet<Tensor> _tracked = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<Tensor, Tensor> _gradients = new(ReferenceEqualityComparer.Instance);
    private readonly List<Node> _nodes = [];

    /// <summary>Starts recording everything born in <paramref name="scope"/>; stops when disposed.</summary>
    /// <param name="scope">Also owns the gradients.</param>
    public Tape(TensorScope scope)
    {
        _scope = scope;
        _outer = scope.Recorder;
        scope.Recorder = this;
    }

    private readonly record struct Node(Tensor Output, Tensor[] Inputs, Func<Tensor, Tensor?[]> Backward);

    /// <summary>Asks for the gradient with respect to <paramref name="tensor"/>: a parameter or an activation.</summary>
    /// <param name="tensor">F32, on the scope's device.</param>
    public void Watch(Tensor tensor) => _tracked.Add(tensor);

    /// <inheritdoc/>
    public bool Tracks(Tensor tensor) => _tracked.Contains(tensor);

    /// <inheritdoc/>
    public void Record(Tensor output, Tensor[] inputs, Func<Tensor, Tensor?[]> backward)
    {
        if (!Array.Exists(inputs, Tracks)) return;
        _tracked.Add(output);
        _nodes.Add(new Node(output, inputs, backward));
    }

    /// <summary>Back-propagates from a scalar loss.</summary>
    /// <param name="loss">F32 [] or [1], recorded on this tape.</param>
    /// <exception cref="ShapeException"><paramref name="loss"/> has more than one element.</exception>
    public void Backward(Tensor loss)
    {
        if (loss.Count != 1)
            throw new ShapeException($"backward: the loss is {loss.Shape}, not a scalar; give the gradient to start from");
        Backward((loss, _scope.From<float>([1f], loss.Shape)));
    }

    /// <summary>Back-propagates from several results with given gradients.</summary>
    /// <param name="seeds">Results recorded on this tape, each with d(objective)/d(result) of its shape.</param>
    public void Backward(params ReadOnlySpan<(Tensor Output, Tensor Gradient)> seeds)
    {
        // Gradients are themselves not recorded.
        var recorder = _scope.Recorder;
        _scope.Recorder = null;
        try
        {
            foreach (var (output, gradient) in seeds) Add(output, gradient);
            for (var i = _nodes.Count - 1; i >= 0; i--)
            {
                var node = _nodes[i];
                if (!_gradients.TryGetValue(node.Output, out var upstream)) continue;
                var parts = node.Backward(upstream);
                for (var k = 0; k < node.Inputs.Length; k++)
                {
                    if (parts[k] is { } part && _tracked.Contains(node.Inputs[k])) Add(node.Inputs[k], part);
                }
            }
        }
        finally
        {
            _scope.Recorder = recorder;
        }
    }

    /// <summary>The gradient with respect to a watched tensor, after <see cref="Backward(Tensor)"/>.</summary>
    /// <param name="tensor">A watched or intermediate tensor.</param>
    /// <returns>A tensor of its shape, owned by the scope; zeros if the result does not depend on it.</returns>
    public Tensor Gradient(Tensor tensor)
    {
        if (_gradients.TryGetValue(tensor, out var g)) return g;
        g = _scope.Zeros(tensor.Shape);
        _gradients.Add(tensor, g);
        return g;
    }

    /// <summary>Stops recording.</summary>
    public void Dispose() => _scope.Recorder = _outer;

    private void Add(Tensor tensor, Tensor part)
    {
        if (part.Shape != tensor.Shape)
            throw new ShapeException($"backward: gradient {part.Shape} for a tensor of {tensor.Shape}");
        // The sum is a new tensor: a part may be shared with another input's gradient.
        _gradients[tensor] = _gradients.TryGetValue(tensor, out var sum) ? Kernels.Add.Sum(_scope, sum, part) : part;
    }
}
