namespace IlgpuSae.Tokenizers;

/// <summary>
/// A token and the part of the text it stands for. Spaces belong to the token that holds them. Tokens that are parts
/// of one character share its place in characters; their bytes are told apart. Text that a normalizer changed is
/// taken back to the smallest stretch it came from. What stands for nothing in the text (BOS, a space put in front)
/// has an empty place.
/// </summary>
/// <param name="Id">The token.</param>
/// <param name="Start">First UTF-16 unit in the text: an index into the string.</param>
/// <param name="End">The unit after the last.</param>
/// <param name="ByteStart">First byte in the text's UTF-8.</param>
/// <param name="ByteEnd">The byte after the last.</param>
public readonly record struct TokenSpan(int Id, int Start, int End, int ByteStart, int ByteEnd);
