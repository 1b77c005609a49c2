using IlgpuSae.Tensors;

namespace IlgpuSae.Saes;

/// <summary>While it lives, nothing born in the scope is recorded: what is computed is a constant to the gradient.</summary>
internal readonly ref struct NoGradient
{
    private readonly TensorScope _scope;
    private readonly IRecorder? _recorder;

    public NoGradient(TensorScope scope)
    {
        _scope = scope;
        _recorder = scope.Recorder;
        scope.Recorder = null;
    }

    public void Dispose() => _scope.Recorder = _recorder;
}
