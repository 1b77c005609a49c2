using IlgpuSae.Kernels;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;

namespace IlgpuSae.Training;

/// <summary>
/// SAELens' fine-tuning of a finished dictionary against shrinkage: in the last <c>finetuning_tokens</c> the encoder
/// rests, and mse_loss alone trains factors s [d_sae] on the features (<c>scale</c>), with b_dec
/// (<c>unrotated_decoder</c>) or with W_dec and b_dec (<c>decoder</c>). A factor on a feature is one on its decoder row,
/// so the SAE holds s_j W_dec[j] all the time and needs no further parameter: with G the gradient of that product,
/// ds_j = G_j . W_dec[j] and dW_dec[j] = s_j G_j. Wright and Sharkey 2024, "Addressing feature suppression in SAEs".
/// </summary>
/// <param name="config">The method, and when it begins.</param>
internal sealed class Finetuning(TrainerConfig config) : IStepExtension, IDisposable
{
    private Tensor? _factors, _rows, _m, _v;
    private Tensor? _factorGradient, _rowGradient;
    private long _steps;

    private bool Decoder => config.FinetuningMethod == FinetuningMethod.Decoder;

    /// <inheritdoc/>
    public void BeforeForward(StepContext step)
    {
        if (_factors is not null || step.Trainer.Samples < config.TotalTrainingSamples) return;
        var decoder = step.Trainer.Sae.WDec;
        _rows = new Tensor(decoder.Device, decoder.Shape);
        _rows.CopyFrom(decoder);
        var n = decoder.Shape[0];
        _factors = new Tensor(decoder.Device, [n]);
        _factors.CopyFrom<float>(Enumerable.Repeat(1f, n).ToArray());
        (_m, _v) = (Zeros(decoder.Device, n), Zeros(decoder.Device, n));
    }

    /// <inheritdoc/>
    public TrainingPass Extend(StepContext step, TrainingPass pass)
    {
        if (_factors is null) return pass;
        var mse = pass.Losses.First(l => l.Name == "mse_loss");
        return pass with { Total = mse.Value, Losses = [mse] };
    }

    /// <inheritdoc/>
    public void OnGradients(StepContext step)
    {
        if (_factors is null) return;
        var product = step.Gradients["W_dec"]!;
        _factorGradient = RowAffine.RowDot(step.Scope, product, _rows);
        _rowGradient = Decoder ? RowAffine.Apply(step.Scope, product, _factors, null) : null;
        if (_rowGradient is not null && step.Trainer.Sae.Config.NormalizeSaeDecoder)
            _rowGradient = UnitDecoder.Across(step.Scope, _rowGradient, _rows!);
        foreach (var name in step.Gradients.Keys.ToArray())
            if (name != "b_dec" || config.FinetuningMethod == FinetuningMethod.Scale) step.Gradients[name] = null;
        step.FurtherGradients.Add(_factorGradient);
        if (_rowGradient is not null) step.FurtherGradients.Add(_rowGradient);
    }

    /// <inheritdoc/>
    public void AfterStep(StepContext step)
    {
        if (_factors is null) return;
        var (device, optimizer) = (_factors.Device, step.Trainer.Optimizer);
        Update(_factors, _factorGradient!, _m!, _v!, ++_steps);
        if (_rowGradient is not null)
        {
            // The rows go on with the moments that training left.
            Update(_rows!, _rowGradient, optimizer.FirstMoment("W_dec"), optimizer.SecondMoment("W_dec"), optimizer.Steps);
            if (step.Trainer.Sae.Config.NormalizeSaeDecoder) UnitDecoder.Normalize(step.Scope, _rows!);
        }

        step.Trainer.Sae.WDec.CopyFrom(RowAffine.Apply(step.Scope, _rows!, _factors, null));

        void Update(Tensor p, Tensor gradient, Tensor m, Tensor v, long t) =>
            AdamStep.Update(device, p, gradient, m, v, step.Lr, config.AdamBeta1, config.AdamBeta2, config.AdamEps, t, step.ClipFactor);
    }

    /// <summary>Gives its memory back.</summary>
    public void Dispose()
    {
        foreach (var t in new[] { _factors, _rows, _m, _v }) t?.Dispose();
    }

    private static Tensor Zeros(Device device, int n)
    {
        var t = new Tensor(device, [n]);
        t.Clear();
        return t;
    }
}
