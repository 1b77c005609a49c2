using System.Diagnostics;
using System.Text.Json.Nodes;
using IlgpuSae.Files;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;
using IlgpuSae.Testing;
using IlgpuSae.Tests.Cli;
using IlgpuSae.Tests.Models;
using IlgpuSae.Tests.Tokenizers;
using Xunit;

namespace IlgpuSae.Tests.Hub;

/// <summary>The command line and the sample against the loopback hub.</summary>
public sealed class HubCommandTests : IDisposable
{
    private readonly TempFolder _temp = new();
    private readonly HubServer _server = new();

    public HubCommandTests()
    {
        // A small GPT-2 with a tokenizer under GPT-2's name, in shards, and an SAE of it under a release's.
        using var folder = new TempFolder();
        var checkpoint = Checkpoint.Of("gpt2_tiny");
        var name = checkpoint.Tensors.Keys.Single(k => k.EndsWith("wte.weight", StringComparison.Ordinal));
        var width = (int)checkpoint.Tensors[name].Shape[1];
        checkpoint.Set(name, [TinyBpe.EndOfText + 1, width], i => MathF.Sin(i * 1.3f));
        checkpoint.Config["vocab_size"] = TinyBpe.EndOfText + 1;
        checkpoint.Save(folder, shards: 2);
        TinyBpe.WriteFolder(folder);
        _server.Add(new ServedRepo("gpt2")).CommitFolder(folder.Path);
        using var device = new CpuDevice(1);
        using var sae = SaeRegistry.Default.CreateForTraining(new TopKTrainingConfig { DIn = width, DSae = 64, K = 4, Metadata = new SaeMetadata().With("hook_name", "blocks.1.hook_resid_pre") }, device);
        using var inference = sae.ToInference();
        SaeLensFolder.Save(folder["sae"], inference);
        _server.Add(new ServedRepo("jbloom/GPT2-Small-SAEs-Reformatted")).CommitFolder(folder["sae"], "blocks.1.hook_resid_pre");
        File.WriteAllText(_temp["text.txt"], string.Concat(Enumerable.Repeat("the a's éclair the 12, ", 20)));
    }

    private static string Root => Path.GetFullPath(Path.Combine(Golden.FolderOf(), "..", ".."));

    public void Dispose()
    {
        _server.Dispose();
        _temp.Dispose();
    }

    private string Succeed(params string[] arguments)
    {
        var (code, output, error) = Ilgpusae.RunIn(_server.Environment(_temp["hf"], HubServer.Token), arguments);
        Assert.True(code == 0, $"exit code {code}: {error}");
        return output;
    }

    private string Fail(int expected, params string[] arguments)
    {
        var (code, _, error) = Ilgpusae.RunIn(_server.Environment(_temp["hf"]), [.. arguments, "--quiet"]);
        Assert.True(code == expected, $"exit code {code}: {error}");
        return Assert.Single(error.TrimEnd('\n').Split('\n'));
    }

    [Fact]
    public void Names_resolve_in_every_verb_and_offline_afterwards()
    {
        const string Sae = "gpt2-small-res-jb/blocks.1.hook_resid_pre";
        Assert.Contains("topk", Succeed("sae", "inspect", "--sae", Sae), StringComparison.Ordinal);
        Assert.StartsWith("the a's", Succeed("generate", "--model", "gpt2-small", "--prompt", "the a's", "--max-new-tokens", "2"), StringComparison.Ordinal);
        Succeed("activations", "--model", "gpt2-small", "--text", _temp["text.txt"], "--context-size", "8", "--hooks", "blocks.1.hook_resid_pre", "--output", _temp["a.safetensors"]);
        var asked = _server.Requests.Count;
        var environment = _server.Environment(_temp["hf"]);
        environment["HF_HUB_OFFLINE"] = "1";
        foreach (var line in new string[][]
        {
            ["encode", "--sae", Sae, "--input", _temp["a.safetensors"], "--tensor", "blocks.1.hook_resid_pre", "--output", _temp["f.safetensors"]],
            ["eval", "--sae", Sae, "--model", "gpt2-small", "--text", _temp["text.txt"], "--context-size", "8", "--batch-size-prompts", "2", "--n-eval-reconstruction-batches", "1", "--n-eval-sparsity-variance-batches", "1"],
            ["train", "--model", "gpt2-small", "--hook-name", "blocks.1.hook_resid_pre", "--text", _temp["text.txt"], "--context-size", "8", "--k", "4", "--training-tokens", "64", "--train-batch-size-tokens", "32", "--store-batch-size-prompts", "4", "--n-eval-batches", "0", "--output-path", _temp["trained"]],
            ["model", "inspect", "--model", "gpt2-small", "--check"],
        })
        {
            var (code, _, error) = Ilgpusae.RunIn(environment, [.. line, "--quiet"]);
            Assert.True(code == 0, $"{line[0]}: {error}");
        }

        Assert.Equal(asked, _server.Requests.Count);
        Assert.Equal("gpt2-small", SaeLensFolder.ReadConfig(_temp["trained"]).Metadata.Get<string>("model_name"));
        using var file = SafetensorsFile.Open(_temp["f.safetensors"]);
        Assert.Contains("reconstruction", file.Names);
    }

    [Fact]
    public void Downloads_print_paths_and_bars()
    {
        var (code, output, error) = Ilgpusae.RunIn(_server.Environment(_temp["hf"]), "hub", "download", "--repo", "gpt2", "--files", "config.json,*.safetensors", "--json", _temp["d.json"]);
        Assert.True(code == 0, error);
        Assert.All(output.TrimEnd('\n').Split('\n'), p => Assert.True(File.Exists(p), p));
        Assert.Equal(3, JsonNode.Parse(File.ReadAllText(_temp["d.json"]))!["files"]!.AsArray().Count);
        Assert.Contains("config.json  [########################] 100%", error, StringComparison.Ordinal);
        Assert.True(File.Exists(Path.Combine(Succeed("sae", "download", "--sae", "gpt2-small-res-jb/blocks.1.hook_resid_pre", "--refresh").Trim(), "cfg.json")));
        Assert.True(File.Exists(Path.Combine(Succeed("model", "download", "--model", "gpt2-small").Trim(), "model-00002-of-00002.safetensors")));
        Assert.Contains("gpt2", Succeed("hub", "cache"), StringComparison.Ordinal);
        Succeed("hub", "cache", "--remove", "gpt2");
        Assert.Contains("is not in the cache", Fail(2, "hub", "cache", "--remove", "gpt2"), StringComparison.Ordinal);
    }

    [Fact]
    public void Lists_accounts_and_uploads()
    {
        Assert.Contains("gpt2-small-res-jb", Succeed("sae", "list"), StringComparison.Ordinal);
        Assert.Contains("blocks.8.hook_resid_pre", Succeed("sae", "list", "--release", "gpt2-small-res-jb", "--json", _temp["l.json"]), StringComparison.Ordinal);
        Assert.Equal(13, JsonNode.Parse(File.ReadAllText(_temp["l.json"]))!["saes"]!.AsArray().Count);
        Assert.Contains("average_l0_{l0}", Succeed("sae", "list", "--release", "gemma-scope-9b-pt-res"), StringComparison.Ordinal);
        Assert.Contains("tester", Succeed("hub", "login-status"), StringComparison.Ordinal);
        var local = Succeed("sae", "download", "--sae", "gpt2-small-res-jb/blocks.1.hook_resid_pre").Trim();
        Assert.Contains("tester/mine/commit/", Succeed("hub", "upload", "--repo", "tester/mine", "--sae", local), StringComparison.Ordinal);
        Assert.Contains("topk", Succeed("sae", "inspect", "--sae", "tester/mine/blocks.1.hook_resid_pre"), StringComparison.Ordinal);
    }

    [Fact]
    public void Bad_names_get_one_line()
    {
        Assert.Contains("near: \"gpt2-small-res-jb\"", Fail(2, "sae", "list", "--release", "gpt2-small-res-jp"), StringComparison.Ordinal);
        Assert.Contains("no such repository", Fail(2, "generate", "--model", "nobody/nothing", "--prompt", "x"), StringComparison.Ordinal);
        Assert.Contains("no such file", Fail(2, "sae", "download", "--sae", "gpt2-small-res-jb/blocks.2.hook_resid_pre"), StringComparison.Ordinal);
        Assert.Contains("HF_TOKEN", Fail(2, "hub", "upload", "--repo", "tester/x", "--sae", MakeSae()), StringComparison.Ordinal);
        Assert.Contains("is no repository", Fail(2, "hub", "download", "--repo", "a/b/c"), StringComparison.Ordinal);
        _server.Add(new ServedRepo("lab/pickles")).Commit(("config.json", "{}"u8.ToArray()), ("pytorch_model.bin", "x"u8.ToArray()));
        Assert.Contains("no weights as safetensors", Fail(2, "model", "download", "--model", "lab/pickles"), StringComparison.Ordinal);
        _server.Add(new ServedRepo("lab/evil")).Commit(("config.json", "{}"u8.ToArray()), ("model.safetensors.index.json", """{"weight_map":{"w":"../../../../evil.safetensors"}}"""u8.ToArray()));
        Assert.Contains("is refused", Fail(2, "model", "download", "--model", "lab/evil"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Two_processes_fetch_a_file_once_and_both_get_it_right()
    {
        var content = DownloadTests.Large(count: 400_000);
        _server.Add(new ServedRepo("lab/big")).Commit(("w.bin", content));
        _server.Slow = (20_000, TimeSpan.FromMilliseconds(150));
        var path = Path.Combine(AppContext.BaseDirectory, "IlgpuSae.Cli.dll");
        var runs = await Task.WhenAll(Enumerable.Range(0, 2).Select(_ => Run(path, _temp["hf"], "hub", "download", "--repo", "lab/big", "--files", "w.bin")));
        Assert.All(runs, r => Assert.True(r.Code == 0, r.Error));
        Assert.All(runs, r => Assert.Equal(content, File.ReadAllBytes(r.Output.Trim())));
        Assert.Single(_server.Downloads);
    }

    [Fact]
    public async Task A_process_that_is_killed_is_gone_on_with()
    {
        var content = DownloadTests.Large(count: 400_000);
        _server.Add(new ServedRepo("lab/big")).Commit(("w.bin", content));
        _server.Slow = (20_000, TimeSpan.FromMilliseconds(150));
        var path = Path.Combine(AppContext.BaseDirectory, "IlgpuSae.Cli.dll");
        string[] line = ["hub", "download", "--repo", "lab/big", "--files", "w.bin"];
        using (var process = Start(path, _temp["hf"], line))
        {
            var unfinished = Path.Combine(_temp["hf"], "hub", "models--lab--big", "blobs", ServedRepo.Sha256(content) + ".incomplete");
            for (var i = 0; i < 1000 && (!File.Exists(unfinished) || new FileInfo(unfinished).Length < 60_000); i++) await Task.Delay(20, TestContext.Current.CancellationToken);
            process.Kill();
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        _server.Slow = null;
        var (code, output, error) = await Run(path, _temp["hf"], line);
        Assert.True(code == 0, error);
        Assert.Equal(content, File.ReadAllBytes(output.Trim()));
        Assert.NotNull(_server.Downloads.Last().Range);
    }

    [Fact]
    public async Task The_sample_loads_by_name_and_analyzes()
    {
#if DEBUG
        const string Configuration = "Debug";
#else
        const string Configuration = "Release";
#endif
        var path = Path.Combine(Root, "samples", "LoadAndAnalyze", "bin", Configuration, "net10.0", "LoadAndAnalyze.dll");
        var (code, output, error) = await Run(path, _temp["hf"], "gpt2-small", "gpt2-small-res-jb", "blocks.1.hook_resid_pre", "the a's");
        Assert.True(code == 0, error);
        Assert.Contains("blocks.1.hook_resid_pre: 4.0 of 64 features active", output, StringComparison.Ordinal);
        Assert.Contains("token \"the\": #", output, StringComparison.Ordinal);
        Assert.Contains("reconstruction error", output, StringComparison.Ordinal);
    }

    /// <summary>Disks of the system's own: full, and closed to writing. Needs the right to mount; elsewhere folders without rights stand in.</summary>
    [Fact]
    public void A_full_disk_and_a_closed_one_leave_a_cache_that_the_next_run_completes()
    {
        if (!OperatingSystem.IsLinux()) return;
        var content = DownloadTests.Large(count: 3_000_000);
        _server.Add(new ServedRepo("lab/big")).Commit(("w.bin", content), ("small", "s"u8.ToArray()));
        string[] big = ["hub", "download", "--repo", "lab/big", "--files", "w.bin"], small = ["hub", "download", "--repo", "lab/big", "--files", "small"];
        Directory.CreateDirectory(_temp["hf"]);
        var mounted = Mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", _temp["hf"]);
        try
        {
            if (mounted)
            {
                Assert.Contains("the disk is", Fail(1, big), StringComparison.Ordinal);
                // The size is not known beforehand: the disk fills up while bytes come.
                _server.Sizes = false;
                Assert.Contains("the disk is full", Fail(1, big), StringComparison.Ordinal);
                _server.Sizes = true;
                Assert.True(Mount("-o", "remount,size=8m", _temp["hf"]));
            }

            Assert.Equal(content, File.ReadAllBytes(Succeed(big).Trim()));
            if (mounted) Assert.True(Mount("-o", "remount,ro", _temp["hf"]));
            else foreach (var folder in Directory.GetDirectories(_temp["hf"], "*", SearchOption.AllDirectories)) File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserExecute);
            // What is there is served from a closed cache; what is not is said not to be storable.
            Assert.Equal(content, File.ReadAllBytes(Succeed(big).Trim()));
            var (code, _, error) = Ilgpusae.RunIn(_server.Environment(_temp["hf"]), [.. small, "--quiet"]);
            Assert.True(code is 1 or 2, error);
            Assert.Contains(_temp["hf"], error, StringComparison.Ordinal);
            if (mounted) Assert.True(Mount("-o", "remount,rw", _temp["hf"]));
            else foreach (var folder in Directory.GetDirectories(_temp["hf"], "*", SearchOption.AllDirectories)) File.SetUnixFileMode(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            Assert.Equal("s", File.ReadAllText(Succeed(small).Trim()));
        }
        finally
        {
            if (mounted) Exec("umount", "-l", _temp["hf"]);
        }
    }

    private static bool Mount(params string[] arguments) => Exec("mount", arguments);

    private static bool Exec(string program, params string[] arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardError = true })!;
            process.WaitForExit();
            return process.ExitCode == 0;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return false;
        }
    }

    private static string MakeSae() => Golden.FolderOf("eval", "gpt2_resid_standard", "sae");

    private Process Start(string assembly, string home, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [assembly, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in _server.Environment(home)) start.Environment[name] = value;
        return Process.Start(start)!;
    }

    private async Task<(int Code, string Output, string Error)> Run(string assembly, string home, params string[] arguments)
    {
        using var process = Start(assembly, home, arguments);
        var output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        var error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, await output, error);
    }
}
