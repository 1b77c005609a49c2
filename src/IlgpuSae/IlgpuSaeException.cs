namespace IlgpuSae;

/// <summary>
/// Base of every error this library reports on purpose. The message is one line: what failed, both values, where,
/// and what to do. Anything else that escapes is a defect of the library.
/// </summary>
public class IlgpuSaeException : Exception
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line for the user.</param>
    public IlgpuSaeException(string message) : base(message)
    {
    }

    /// <summary>Creates the error with the failure that caused it.</summary>
    /// <param name="message">One line for the user.</param>
    /// <param name="inner">The cause, shown only on request.</param>
    public IlgpuSaeException(string message, Exception? inner) : base(message, inner)
    {
    }
}

/// <summary>Wrong input from the user: an option, a configuration value, a name. The command line exits with 2.</summary>
public class InvalidInputException : IlgpuSaeException
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">One line: found, expected, what to do.</param>
    public InvalidInputException(string message) : base(message)
    {
    }

    /// <summary>Creates the error with its cause.</summary>
    /// <param name="message">One line: found, expected, what to do.</param>
    /// <param name="inner">The cause.</param>
    public InvalidInputException(string message, Exception? inner) : base(message, inner)
    {
    }
}

/// <summary>A file whose bytes cannot be used: missing, truncated, lying about itself, of a wrong kind.</summary>
public class InvalidFileException : InvalidInputException
{
    /// <summary>Creates the error.</summary>
    /// <param name="path">The file, as the user named it.</param>
    /// <param name="problem">What is wrong with it and what was expected.</param>
    /// <param name="inner">The cause, if another failure led here.</param>
    public InvalidFileException(string path, string problem, Exception? inner = null)
        : base($"{path}: {problem}", inner) => Path = path;

    /// <summary>The file.</summary>
    public string Path { get; }
}

/// <summary>Tensors whose shapes, types or devices do not fit the operation.</summary>
public sealed class ShapeException : InvalidInputException
{
    /// <summary>Creates the error.</summary>
    /// <param name="message">The operation and both shapes.</param>
    public ShapeException(string message) : base(message)
    {
    }
}
