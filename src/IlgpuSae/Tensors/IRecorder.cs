namespace IlgpuSae.Tensors;

/// <summary>
/// What a kernel tells about itself when gradients are wanted. The tape implements it; kernels, which lie in a layer
/// below, only see this interface. <see cref="TensorScope.Recorder"/> is null when nothing is to be differentiated.
/// </summary>
public interface IRecorder
{
    /// <summary>Whether a gradient with respect to <paramref name="tensor"/> will be asked for.</summary>
    /// <param name="tensor">An input of an operation.</param>
    bool Tracks(Tensor tensor);

    /// <summary>Records one operation.</summary>
    /// <param name="output">Its result, one tensor.</param>
    /// <param name="inputs">Its inputs; those not tracked are ignored.</param>
    /// <param name="backward">
    /// Given d(loss)/d(output), of the output's shape, returns d(loss)/d(input) for each input in order, of that
    /// input's shape; null where the input is not tracked. It must not write to the gradient it is given, which may
    /// be shared, but may return it as it is. It may return tensors of any scope that outlives the backward pass;
    /// the scope of the forward pass is the usual choice.
    /// </param>
    void Record(Tensor output, Tensor[] inputs, Func<Tensor, Tensor?[]> backward);
}
