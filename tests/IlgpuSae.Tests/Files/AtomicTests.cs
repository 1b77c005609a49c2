using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Tests.Files;

public sealed class AtomicTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_file_appears_whole_with_its_parents()
    {
        var path = System.IO.Path.Combine(_folder["a"], "b", "x.txt");
        AtomicFile.WriteText(path, "é");
        Assert.Equal("é"u8.ToArray(), File.ReadAllBytes(path));
        AtomicFile.WriteText(path, "new");
        Assert.Equal("new", File.ReadAllText(path));
        Assert.Equal(["x.txt"], Directory.GetFiles(System.IO.Path.GetDirectoryName(path)!).Select(System.IO.Path.GetFileName));
    }

    [Fact]
    public void A_failure_leaves_the_old_file_and_nothing_else()
    {
        var path = _folder.Write("x", "old");
        Assert.Throws<InvalidOperationException>(() => AtomicFile.Write(path, s =>
        {
            s.Write(new byte[100_000]);
            throw new InvalidOperationException("half way");
        }));
        Assert.Equal(["x"], _folder.List());
        Assert.Equal("old", File.ReadAllText(path));
    }

    [Fact]
    public void A_full_disk_is_said_in_one_line()
    {
        if (!File.Exists("/dev/full")) Assert.Skip("needs /dev/full");
        var e = Assert.Throws<IlgpuSaeException>(() => AtomicFile.Write("/dev/full", s => s.Write(new byte[100_000]), 1_234_567));
        Assert.StartsWith("/dev/full: the disk is full: 1,234,567 bytes are needed, ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith(" are free; free some space or write elsewhere", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_disk_that_fills_up_while_writing_leaves_nothing()
    {
        var full = new IOException("No space left on device", OperatingSystem.IsWindows() ? unchecked((int)0x80070070) : 28);
        var e = Assert.Throws<IlgpuSaeException>(() => AtomicFile.Write(_folder["x"], s =>
        {
            s.Write(new byte[300_000]);
            throw full;
        }));
        Assert.StartsWith($"{_folder["x"]}: the disk is full: 300,000 bytes are needed", e.Message, StringComparison.Ordinal);
        Assert.Empty(_folder.List());
    }

    [Fact]
    public void No_permission_is_said_in_one_line()
    {
        var e = AtomicFile.Explain("out/x", new UnauthorizedAccessException("Access to the path is denied."), 0);
        Assert.Equal("out/x: no permission to write here; choose another place or change its rights", Assert.IsType<InvalidInputException>(e).Message);
        if (OperatingSystem.IsWindows() || Environment.IsPrivilegedProcess) return; // the administrator may write anywhere
        File.SetUnixFileMode(_folder.Path, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        Assert.Throws<InvalidInputException>(() => AtomicFile.WriteText(_folder["x"], "x"));
        Assert.Throws<InvalidInputException>(() => AtomicDirectory.Create(_folder["d"]));
        File.SetUnixFileMode(_folder.Path, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.UserWrite);
    }

    [Fact]
    public void A_name_that_is_a_folder_or_lies_under_a_file_is_refused()
    {
        Assert.Equal($"{_folder.Path}: is a folder, a file is to be written there; give another name", Assert.Throws<InvalidInputException>(() => AtomicFile.WriteText(_folder.Path, "x")).Message);
        _folder.Write("f", "x");
        Assert.ThrowsAny<IlgpuSaeException>(() => AtomicFile.WriteText(System.IO.Path.Combine(_folder["f"], "x"), "x"));
        Assert.Equal(["f"], _folder.List());
    }

    [Fact]
    public void A_link_stays_a_link()
    {
        if (OperatingSystem.IsWindows()) Assert.Skip("links need rights on Windows");
        _folder.Write("target", "old");
        File.CreateSymbolicLink(_folder["link"], _folder["target"]);
        AtomicFile.WriteText(_folder["link"], "new");
        Assert.Equal("new", File.ReadAllText(_folder["target"]));
        Assert.NotNull(new FileInfo(_folder["link"]).LinkTarget);
    }

    [Fact]
    public void A_folder_appears_with_its_commit_or_not_at_all()
    {
        using (var d = AtomicDirectory.Create(_folder["out"]))
        {
            File.WriteAllText(d.FileIn("a"), "1");
            Assert.False(Directory.Exists(_folder["out"]));
            d.Commit();
        }

        using (var d = AtomicDirectory.Create(_folder["gone"])) File.WriteAllText(d.FileIn("a"), "1");
        Assert.Equal(["out"], _folder.List());
        Assert.Equal("1", File.ReadAllText(System.IO.Path.Combine(_folder["out"], "a")));
    }

    [Fact]
    public void A_taken_folder_is_refused_or_exchanged()
    {
        Directory.CreateDirectory(_folder["empty"]);
        using (var d = AtomicDirectory.Create(_folder["empty"])) d.Commit();
        Directory.CreateDirectory(_folder["full"]);
        File.WriteAllText(System.IO.Path.Combine(_folder["full"], "old"), "");
        Assert.Equal($"{_folder["full"]}: the folder exists and is not empty; give another name or remove it", Assert.Throws<InvalidInputException>(() => AtomicDirectory.Create(_folder["full"])).Message);
        using (var d = AtomicDirectory.Create(_folder["full"] + "/", replace: true))
        {
            File.WriteAllText(d.FileIn("new"), "");
            d.Commit();
        }

        Assert.Equal(["new"], Directory.GetFiles(_folder["full"]).Select(System.IO.Path.GetFileName));
        var file = _folder.Write("file", "");
        Assert.Equal($"{file}: is a file, a folder is to be written there; give another name", Assert.Throws<InvalidInputException>(() => AtomicDirectory.Create(file, replace: true)).Message);
        Assert.Equal(["empty", "file", "full"], _folder.List());
    }
}
