using System.Text.Json.Nodes;

namespace IlgpuSae.Tokenizers;

/// <content>Conversations.</content>
public abstract partial class Tokenizer
{
    private Func<ChatTemplate?> _chat = static () => null;
    private ChatTemplate? _chatTemplate;

    /// <summary>How the model's conversations are written, from chat_template.jinja or tokenizer_config.json; null when neither says so.</summary>
    /// <exception cref="InvalidFileException">The template cannot be followed; the message says where.</exception>
    public ChatTemplate? ChatTemplate => _chatTemplate ??= _chat();

    /// <summary>The tokens of a conversation. The template writes BOS itself; none is added.</summary>
    /// <param name="messages">Objects with "role" and "content".</param>
    /// <param name="addGenerationPrompt">Whether the beginning of the model's next answer follows.</param>
    /// <param name="variables">More variables of the template; null: none.</param>
    /// <exception cref="InvalidInputException">The tokenizer has no chat template, or it refuses the conversation.</exception>
    public int[] EncodeChat(JsonArray messages, bool addGenerationPrompt = false, IReadOnlyDictionary<string, JsonNode?>? variables = null)
    {
        var template = ChatTemplate ?? throw new InvalidInputException("the tokenizer has no chat template: neither chat_template.jinja nor \"chat_template\" in tokenizer_config.json; give plain text");
        return Encode(template.Render(messages, addGenerationPrompt, variables), addBos: false);
    }

    /// <summary>Says where the template is; it is read when it is first asked for, so that a faulty one spoils nothing else.</summary>
    internal Tokenizer WithChat(TokenizerFolder folder)
    {
        _chat = folder.ChatTemplate;
        return this;
    }
}
