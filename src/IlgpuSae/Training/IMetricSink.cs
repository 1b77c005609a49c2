namespace IlgpuSae.Training;

/// <summary>Receives every step's numbers. One class a back-end.</summary>
public interface IMetricSink : IDisposable
{
    /// <summary>Takes one step's numbers.</summary>
    /// <param name="metrics">The numbers.</param>
    void Write(StepMetrics metrics);

    /// <summary>Called once when training has ended or was stopped by the user; not after an error.</summary>
    void Complete();
}
