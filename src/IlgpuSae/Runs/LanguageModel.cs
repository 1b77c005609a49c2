using IlgpuSae.Activations;
using IlgpuSae.Hub;
using IlgpuSae.Models;
using IlgpuSae.Tensors;
using IlgpuSae.Tokenizers;

namespace IlgpuSae.Runs;

/// <summary>A model's folder opened: the model, and its tokenizer when text or special tokens need it.</summary>
public sealed class LanguageModel : IDisposable
{
    private Tokenizer? _tokenizer;

    private LanguageModel(string folder, string name, HookedTransformer model)
    {
        Folder = folder;
        Name = name;
        Model = model;
    }

    /// <summary>Where it was loaded from.</summary>
    public string Folder { get; }

    /// <summary>The last part of the name it was asked for by: what metadata call the model.</summary>
    public string Name { get; }

    /// <summary>The model.</summary>
    public HookedTransformer Model { get; }

    /// <summary>Its tokenizer, read on first use.</summary>
    /// <exception cref="InvalidFileException">The folder has none, or one that is damaged or of an unknown kind.</exception>
    public Tokenizer Tokenizer => _tokenizer ??= Tokenizer.Load(Folder);

    /// <summary>Loads a Hugging Face folder, or a model of the hub.</summary>
    /// <param name="reference">The folder, or what <see cref="ModelReference"/> understands.</param>
    /// <param name="device">Where the model is to live.</param>
    /// <param name="options">How; null: as stored, nothing processed.</param>
    /// <param name="hub">Opens the hub, should it be needed; null: as the environment says.</param>
    /// <param name="cancellation">Stops a transfer; what has come is kept for the next run.</param>
    /// <exception cref="InvalidFileException">A file is missing, damaged or does not fit.</exception>
    /// <exception cref="IlgpuSaeException">It cannot be fetched.</exception>
    public static LanguageModel Load(
        string reference, Device device, ModelLoadOptions? options = null, Func<HubClient>? hub = null, CancellationToken cancellation = default)
    {
        var folder = ModelReference.Fetch(reference, hub, cancellation);
        return new LanguageModel(folder, ModelReference.NameOf(reference), HookedTransformer.Load(folder, device, options));
    }

    /// <summary>Opens the tokens a configuration names.</summary>
    /// <param name="data">Its <c>text</c>, <c>dataset_path</c> or <c>tokens</c>.</param>
    /// <param name="contexts">Which contexts of a token file; null: all.</param>
    /// <param name="heldOut">Whether the rows that <c>holdout_fraction</c> keeps from training are read.</param>
    /// <exception cref="InvalidInputException">Nothing is given, a file cannot be used, or a special token is missing.</exception>
    public TokenSource OpenTokens(DataConfig data, PositionSlice? contexts, bool heldOut = false)
    {
        if (data.TokensPath is { } tokens) return new TokenFileSource(tokens, data.ContextSize, contexts);
        if (data.TextPath is not { } text) throw new InvalidInputException("the model has nothing to read; give text, dataset_path or tokens");
        // The default context of text must fit small models as well.
        var size = data.ContextSize ?? Math.Min(128, Model.Spec.NCtx);
        if (size > Model.Spec.NCtx) throw new InvalidInputException($"context_size: {size} tokens are more than the model's context of {Model.Spec.NCtx} (n_ctx)");
        var parts = DataMix.Open(text, data);
        // Rows of ids are taken as they are: they need neither a tokenizer nor special tokens.
        if (parts.All(p => p.Data.Kind == Datasets.DataColumnKind.Tokens))
            return new DatasetTokenSource(parts, null, new PackingOptions { ContextSize = size }, data.Split(heldOut));
        return new DatasetTokenSource(parts, Tokenizer, new PackingOptions
        {
            ContextSize = size,
            BeginBatchToken = data.PrependBos ? Tokenizer.BosToken ?? throw Missing("prepend_bos", "BOS", "prepend_bos false") : null,
            SequenceSeparatorToken = Separator(data.SequenceSeparatorToken),
            DisableConcatSequences = data.DisableConcatSequences,
        }, data.Split(heldOut));
    }

    /// <summary>The token ids that a choice means for this model.</summary>
    /// <param name="exclusion">The choice.</param>
    /// <exception cref="InvalidInputException">An id is not in the model's vocabulary.</exception>
    public IReadOnlyList<int> Excluded(TokenExclusion exclusion)
    {
        if (exclusion.AllSpecial) return [.. Enumerable.Range(0, Tokenizer.VocabularySize).Where(Tokenizer.IsSpecial)];
        foreach (var id in exclusion.Ids)
        {
            if (id >= Model.Spec.DVocab)
                throw new InvalidInputException($"exclude_special_tokens: id {id} is not in 0..{Model.Spec.DVocab - 1} (d_vocab of {Name})");
        }

        return exclusion.Ids;
    }

    /// <summary>Gives the model's memory back.</summary>
    public void Dispose() => Model.Dispose();

    private int? Separator(string? name) => name switch
    {
        null or "none" or "" => null,
        // SAELens passes over a separator that the tokenizer does not have.
        "bos" => Tokenizer.BosToken,
        "eos" => Tokenizer.EosToken,
        "sep" => Tokenizer.SepToken ?? throw Missing("sequence_separator_token", "SEP", "bos, eos, none or a token id"),
        _ when int.TryParse(name, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out var id) && id < Model.Spec.DVocab => id,
        _ => throw new InvalidInputException($"sequence_separator_token: \"{name}\" is none of bos, eos, none and the token ids 0..{Model.Spec.DVocab - 1}"),
    };

    private InvalidInputException Missing(string field, string token, string instead) =>
        new($"{field}: the tokenizer of {Folder} has no {token} token; use {instead}");
}
