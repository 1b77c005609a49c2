namespace IlgpuSae.Kernels;

/// <summary>Elementwise nonlinearities of transformers; see <see cref="Activate"/> for the formulas.</summary>
public enum ActivationKind
{
    /// <summary>x.</summary>
    Identity,

    /// <summary>max(x, 0).</summary>
    Relu,

    /// <summary>x/2 (1 + erf(x / sqrt 2)): PyTorch's GELU, "gelu".</summary>
    Gelu,

    /// <summary>x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): "gelu_new", "gelu_pytorch_tanh".</summary>
    GeluNew,

    /// <summary>x/2 (1 + tanh(0.7978845608 x (1 + 0.044715 x^2))): "gelu_fast"; GeluNew in another order of operations.</summary>
    GeluFast,

    /// <summary>x sigmoid(1.702 x): "quick_gelu".</summary>
    GeluQuick,

    /// <summary>x sigmoid(x): "silu", "swish".</summary>
    Silu,

    /// <summary>tanh(x).</summary>
    Tanh,

    /// <summary>1 / (1 + e^-x).</summary>
    Sigmoid,

    /// <summary>max(x, 0)^2.</summary>
    ReluSquared,
}
