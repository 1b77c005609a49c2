namespace IlgpuSae.Hub;

/// <summary>A transfer from or to the hub failed: the network, the server, or bytes that are not what was promised.</summary>
public sealed class HubTransferException : IlgpuSaeException
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: what failed, how far it came, what to do.</param>
    /// <param name="inner">The cause.</param>
    public HubTransferException(string message, Exception? inner = null)
        : base(message, inner)
    {
    }
}
