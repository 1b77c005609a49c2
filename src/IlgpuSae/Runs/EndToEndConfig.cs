using System.ComponentModel;
using IlgpuSae.Saes;

namespace IlgpuSae.Runs;

/// <summary>What end-to-end training compares.</summary>
public enum EndToEndLoss
{
    /// <summary>The predictions of the model as it is and with the SAE in it: mean over tokens of KL(clean || spliced).</summary>
    Kl,

    /// <summary>The spliced model's predictions with the text: mean cross-entropy of the next token.</summary>
    Ce,
}

/// <summary>
/// End-to-end training: the SAE stands in the model, and what it does to the predictions is a loss, whose gradient comes
/// back through the model's later layers. The model itself does not change. Braun et al. 2024, arXiv:2405.12241.
/// </summary>
public sealed record EndToEndConfig
{
    /// <summary>Which loss; null: none, the SAE is trained on activations alone.</summary>
    [LeftOutByDefault]
    [Description("kl or ce: train through the model on whole contexts; none: on activations alone")]
    public EndToEndLoss? E2eLoss { get; init; }

    /// <summary>Weight of that loss.</summary>
    [LeftOutByDefault]
    [Description("weight of the end-to-end loss")]
    public double E2eCoefficient { get; init; } = 1;

    /// <summary>Weight of mse_loss beside it.</summary>
    [LeftOutByDefault]
    [Description("weight of mse_loss beside the end-to-end loss")]
    public double E2eMseCoefficient { get; init; }

    /// <summary>Checks the settings against the rest of the run.</summary>
    /// <param name="run">The run.</param>
    /// <exception cref="InvalidInputException">They cannot be, or the run has no model to train through.</exception>
    public void Validate(RunConfig run)
    {
        foreach (var (name, value) in new[] { ("e2e_coefficient", E2eCoefficient), ("e2e_mse_coefficient", E2eMseCoefficient) })
            if (!(value >= 0 && double.IsFinite(value))) throw new InvalidInputException($"{name}: {value} is not a number of at least 0");
        if (E2eLoss is null) return;
        if (run.Data.ModelName is null) throw new InvalidInputException("e2e_loss: there is no model to train through; give model_name and text or tokens, or use none");
        if (run.Sae.IsTranscoder) throw new InvalidInputException($"e2e_loss: architecture {run.Sae.Architecture} cannot stand in for one hook; use none");
        if (run.Trainer.FinetuningTokens > 0) throw new InvalidInputException("finetuning_tokens: fine-tuning of scales or decoder follows mse_loss alone; use 0 with e2e_loss");
        if (E2eCoefficient == 0 && E2eMseCoefficient == 0) throw new InvalidInputException("e2e_coefficient: 0, and so is e2e_mse_coefficient; nothing would be reconstructed");
    }
}
