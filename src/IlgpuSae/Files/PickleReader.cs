using System.Buffers.Binary;
using System.Globalization;
using System.Text;

namespace IlgpuSae.Files;

/// <summary>
/// Reads a Python pickle without being Python: a stack machine that knows only what settings and state dictionaries are
/// made of. Values are built, nothing is imported or called; what a pickle wants called is looked up in its host's
/// allow-list. Opcodes and classes beyond that are refused by name. Source: CPython's pickletools, protocols 0 to 5.
/// </summary>
/// <param name="path">The file, for messages.</param>
/// <param name="stream">Stands at the pickle's first byte; left behind its last.</param>
/// <param name="limit">Most bytes that are read.</param>
/// <param name="host">What may be asked for.</param>
internal sealed class PickleReader(string path, Stream stream, long limit, IPickleHost host)
{
    private const int MaxLineBytes = 1 << 16;
    private const int MaxStack = 1 << 22;
    private const int ChunkBytes = 1 << 20;

    private readonly List<object?> _stack = [];
    private readonly Stack<int> _marks = new();
    private readonly Dictionary<long, object?> _memo = [];
    private readonly byte[] _small = new byte[8];
    private long _at;

    /// <summary>The pickled value: null, bool, long, double, string, byte[] or one of the types beside this one.</summary>
    /// <exception cref="InvalidFileException">Damaged, too large, or asking for what it may not have.</exception>
    public object? Read()
    {
        while (true)
        {
            var op = (PickleOp)Byte();
            if (op == PickleOp.Stop)
            {
                var value = Pop();
                return _stack.Count == 0 ? value : throw Wrong("ends with more than one value");
            }

            Step(op);
            if (_stack.Count > MaxStack) throw Wrong($"holds more than {MaxStack} values at once");
        }
    }

    private void Step(PickleOp op)
    {
        switch (op)
        {
            case PickleOp.Proto:
                var version = Byte();
                if (version > 5) throw Wrong($"is of protocol {version}; 0 to 5 are read");
                break;
            case PickleOp.Frame:
                // Frames only help readers to buffer.
                Int64();
                break;
            case PickleOp.Mark:
                _marks.Push(_stack.Count);
                break;
            case PickleOp.Pop:
                if (_marks.Count > 0 && _marks.Peek() == _stack.Count) _marks.Pop();
                else Pop();
                break;
            case PickleOp.PopMark:
                PopToMark();
                break;
            case PickleOp.Dup:
                Push(Peek());
                break;
            case PickleOp.None:
                Push(null);
                break;
            case PickleOp.NewTrue:
                Push(true);
                break;
            case PickleOp.NewFalse:
                Push(false);
                break;
            case PickleOp.Int or PickleOp.Long:
                PushInteger(Line());
                break;
            case PickleOp.BinInt:
                Push((long)BinaryPrimitives.ReadInt32LittleEndian(Small(4)));
                break;
            case PickleOp.BinInt1:
                Push((long)Byte());
                break;
            case PickleOp.BinInt2:
                Push((long)BinaryPrimitives.ReadUInt16LittleEndian(Small(2)));
                break;
            case PickleOp.Long1:
                PushLong(Bytes(Byte()));
                break;
            case PickleOp.Long4:
                PushLong(Bytes(Length(4)));
                break;
            case PickleOp.Float:
                Push(double.TryParse(Line(), NumberStyles.Float, CultureInfo.InvariantCulture, out var number) ? number : throw Wrong("holds a number that is none"));
                break;
            case PickleOp.BinFloat:
                Push(BinaryPrimitives.ReadDoubleBigEndian(Small(8)));
                break;
            default:
                StepText(op);
                break;
        }
    }

    private void StepText(PickleOp op)
    {
        switch (op)
        {
            case PickleOp.ShortBinUnicode:
                Push(Text(Byte()));
                break;
            case PickleOp.BinUnicode:
                Push(Text(Length(4)));
                break;
            case PickleOp.BinUnicode8:
                Push(Text(Length(8)));
                break;
            case PickleOp.Unicode:
                Push(Unescaped(Line(Encoding.Latin1)));
                break;
            case PickleOp.String:
                var quoted = Line();
                if (quoted.Length < 2 || quoted[0] is not ('\'' or '"') || quoted[^1] != quoted[0] || quoted.Contains('\\', StringComparison.Ordinal))
                    throw Wrong("holds a string that is not quoted plainly");
                Push(quoted[1..^1]);
                break;
            // Strings of Python 2: bytes that PyTorch reads as text.
            case PickleOp.ShortBinString:
                Push(Encoding.Latin1.GetString(Bytes(Byte())));
                break;
            case PickleOp.BinString:
                Push(Encoding.Latin1.GetString(Bytes(Length(4))));
                break;
            case PickleOp.ShortBinBytes:
                Push(Bytes(Byte()));
                break;
            case PickleOp.BinBytes:
                Push(Bytes(Length(4)));
                break;
            case PickleOp.BinBytes8 or PickleOp.ByteArray8:
                Push(Bytes(Length(8)));
                break;
            default:
                StepContainer(op);
                break;
        }
    }

    private void StepContainer(PickleOp op)
    {
        switch (op)
        {
            case PickleOp.EmptyTuple:
                Push(new PickleTuple([]));
                break;
            case PickleOp.Tuple1:
                Push(new PickleTuple([Pop()]));
                break;
            case PickleOp.Tuple2:
                var second = Pop();
                Push(new PickleTuple([Pop(), second]));
                break;
            case PickleOp.Tuple3:
                var (c, b) = (Pop(), Pop());
                Push(new PickleTuple([Pop(), b, c]));
                break;
            case PickleOp.Tuple:
                Push(new PickleTuple(PopToMark()));
                break;
            case PickleOp.EmptyList or PickleOp.EmptySet:
                Push(new List<object?>());
                break;
            case PickleOp.List or PickleOp.FrozenSet:
                Push(PopToMark().ToList());
                break;
            case PickleOp.EmptyDict:
                Push(new PickleDict());
                break;
            case PickleOp.Dict:
                var pairs = PopToMark();
                Push(new PickleDict());
                SetItems(pairs);
                break;
            case PickleOp.Append:
                Append([Pop()]);
                break;
            case PickleOp.Appends or PickleOp.AddItems:
                Append(PopToMark());
                break;
            case PickleOp.SetItem:
                var value = Pop();
                SetItems([Pop(), value]);
                break;
            case PickleOp.SetItems:
                SetItems(PopToMark());
                break;
            case PickleOp.Put:
                _memo[Index(Line())] = Peek();
                break;
            case PickleOp.BinPut:
                _memo[Byte()] = Peek();
                break;
            case PickleOp.LongBinPut:
                _memo[BinaryPrimitives.ReadUInt32LittleEndian(Small(4))] = Peek();
                break;
            case PickleOp.Memoize:
                _memo[_memo.Count] = Peek();
                break;
            case PickleOp.Get:
                Push(Memo(Index(Line())));
                break;
            case PickleOp.BinGet:
                Push(Memo(Byte()));
                break;
            case PickleOp.LongBinGet:
                Push(Memo(BinaryPrimitives.ReadUInt32LittleEndian(Small(4))));
                break;
            default:
                StepObject(op);
                break;
        }
    }

    private void StepObject(PickleOp op)
    {
        switch (op)
        {
            case PickleOp.Global:
                Push(Find(Line(), Line()));
                break;
            case PickleOp.StackGlobal:
                var name = Pop() as string;
                if (Pop() is not string module || name is null) throw Wrong("names a class by something that is no text");
                Push(Find(module, name));
                break;
            case PickleOp.Reduce or PickleOp.NewObj:
                Call(Pop());
                break;
            case PickleOp.Build:
                Build(Pop());
                break;
            case PickleOp.BinPersId:
                Push(host.Persistent(Pop()));
                break;
            default:
                throw Wrong(Enum.IsDefined(op)
                    ? $"uses the opcode {op.ToString().ToUpperInvariant()} (byte {_at - 1}), which weights have no need of; nothing was executed"
                    : $"has byte 0x{(byte)op:x2} at {_at - 1}, which is no opcode; it is damaged or no pickle");
        }
    }

    /// <summary>The global of a name; a name that is not on the list is the error that matters most.</summary>
    private object Find(string module, string name) => host.Find(module, name)
        ?? throw Wrong($"asks for {Name(module, name)}, which weights have no need of and which could run code; nothing was executed");

    private static string Name(string module, string name)
    {
        var quoted = Say.Quote($"{module}.{name}");
        return quoted[1..^1];
    }

    private void Call(object? arguments)
    {
        if (arguments is not PickleTuple tuple) throw Wrong("calls something with arguments that are no tuple");
        if (Pop() is not PickleGlobal global) throw Wrong("calls something that is no class or function");
        if (global.Call is null) throw Wrong($"calls {global.Name}, which is only a name here; nothing was executed");
        try
        {
            Push(global.Call(tuple.Items));
        }
        catch (PickleArgumentException e)
        {
            throw Wrong($"calls {global.Name} with {e.Message}");
        }
    }

    private void Build(object? state)
    {
        if (Peek() is PickleDType && state is PickleTuple { Items: [_, ">", ..] }) throw Wrong("holds numbers in big-endian order");
        // Tensors and ordered dictionaries may carry attributes that say nothing about their values.
        if (Peek() is not PickleRecord record) return;
        // (dict, slots) where a class has slots.
        object?[] parts = state is PickleTuple { Items: [_, _] pair } ? pair : [state];
        foreach (var part in parts)
        {
            if (part is null) continue;
            if (part is not PickleDict fields) throw Wrong($"gives an object of class {record.Class} a state that is no dictionary");
            foreach (var (key, value) in fields.Pairs) record.Fields.Set(key, value);
        }
    }

    private void Append(object?[] items)
    {
        if (Peek() is not List<object?> list) throw Wrong("appends to something that is no list");
        list.AddRange(items);
    }

    private void SetItems(object?[] items)
    {
        if (items.Length % 2 != 0) throw Wrong("sets a key without a value");
        if (Peek() is not PickleDict dict) throw Wrong("sets a key of something that is no dictionary");
        for (var i = 0; i < items.Length; i += 2) dict.Set(items[i], items[i + 1]);
    }

    private void PushInteger(string text)
    {
        // Protocol 0 and 1 wrote booleans so.
        if (text is "00" or "01") Push(text == "01");
        else Push(long.TryParse(text.EndsWith('L') ? text[..^1] : text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var n) ? n : new PickleOpaque("a large integer"));
    }

    private void PushLong(byte[] bytes)
    {
        if (bytes.Length > 8)
        {
            Push(bytes.AsSpan().SequenceEqual(PyTorchLegacy.Magic) ? PyTorchLegacy.MagicValue : new PickleOpaque("a large integer"));
            return;
        }

        long value = bytes.Length > 0 && bytes[^1] >= 0x80 ? -1 : 0;
        for (var i = bytes.Length - 1; i >= 0; i--) value = (value << 8) | bytes[i];
        Push(value);
    }

    private void Push(object? value) => _stack.Add(value);

    private object? Pop()
    {
        var value = Peek();
        _stack.RemoveAt(_stack.Count - 1);
        return value;
    }

    private object? Peek() => _stack.Count > (_marks.Count > 0 ? _marks.Peek() : 0) ? _stack[^1] : throw Wrong("takes a value where there is none; it is damaged");

    private object?[] PopToMark()
    {
        if (_marks.Count == 0) throw Wrong("closes a list that was not opened; it is damaged");
        var from = _marks.Pop();
        object?[] items = [.. _stack.Skip(from)];
        _stack.RemoveRange(from, _stack.Count - from);
        return items;
    }

    private object? Memo(long index) => _memo.TryGetValue(index, out var value) ? value : throw Wrong($"refers to value {index}, which it has not made");

    private long Index(string text) => long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var n) ? n : throw Wrong("refers to a value by something that is no number");

    private byte Byte() => Small(1)[0];

    private long Int64() => BinaryPrimitives.ReadInt64LittleEndian(Small(8));

    private long Length(int bytes)
    {
        var length = bytes == 4 ? BinaryPrimitives.ReadUInt32LittleEndian(Small(4)) : BinaryPrimitives.ReadUInt64LittleEndian(Small(8));
        return length <= (ulong)Array.MaxLength ? (long)length : throw Wrong($"claims a value of {length} bytes; at most {Array.MaxLength} are read");
    }

    private ReadOnlySpan<byte> Small(int count)
    {
        Fill(_small.AsSpan(0, count));
        return _small.AsSpan(0, count);
    }

    private string Text(long length)
    {
        try
        {
            return new UTF8Encoding(false, true).GetString(Bytes(length));
        }
        catch (DecoderFallbackException)
        {
            throw Wrong("holds a text that is not valid UTF-8");
        }
    }

    /// <summary>Memory grows with the bytes that really come, not with those that are claimed.</summary>
    private byte[] Bytes(long length)
    {
        if (length > limit - _at) throw Wrong($"claims a value of {length} bytes where at most {limit - _at} follow");
        var bytes = new byte[Math.Min(length, ChunkBytes)];
        Fill(bytes);
        while (bytes.Length < length)
        {
            var done = bytes.Length;
            Array.Resize(ref bytes, (int)Math.Min(length, 2L * done));
            Fill(bytes.AsSpan(done));
        }

        return bytes;
    }

    /// <summary>Protocol 0 writes what is not Latin-1 as \uXXXX and a backslash as \u005c.</summary>
    private string Unescaped(string text)
    {
        var result = new StringBuilder();
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] != '\\')
            {
                result.Append(text[i]);
                continue;
            }

            var digits = text.AsSpan(i + 1) is ['u', ..] ? 4 : 8;
            if (i + 2 + digits > text.Length || text[i + 1] is not ('u' or 'U')
                || !int.TryParse(text.AsSpan(i + 2, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var code) || code is < 0 or > 0x10FFFF)
            {
                throw Wrong("holds a text with an escape that is none");
            }

            if (code > 0xFFFF) result.Append(char.ConvertFromUtf32(code));
            else result.Append((char)code);
            i += 1 + digits;
        }

        return result.ToString();
    }

    private string Line(Encoding? encoding = null)
    {
        var line = new List<byte>();
        for (var b = Byte(); b != '\n'; b = Byte())
        {
            line.Add(b);
            if (line.Count > MaxLineBytes) throw Wrong("has a line that does not end");
        }

        return (encoding ?? Encoding.UTF8).GetString([.. line]);
    }

    private void Fill(Span<byte> bytes)
    {
        if (bytes.Length > limit - _at) throw Wrong($"is longer than the {limit} bytes that are expected of it");
        try
        {
            stream.ReadExactly(bytes);
        }
        catch (EndOfStreamException)
        {
            throw Wrong("ends in the middle; the file is truncated");
        }

        _at += bytes.Length;
    }

    private InvalidFileException Wrong(string problem) => new(path, $"its pickle {problem}");
}

/// <summary>Arguments that an allowed class or function cannot take.</summary>
/// <param name="message">Ends the sentence "calls NAME with".</param>
internal sealed class PickleArgumentException(string message) : Exception(message);
