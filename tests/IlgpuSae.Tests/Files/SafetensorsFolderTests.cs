using IlgpuSae.Files;
using Xunit;

namespace IlgpuSae.Tests.Files;

public sealed class SafetensorsFolderTests : IDisposable
{
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Shards_read_like_one_file()
    {
        new SafetensorsWriter().Add("a", [2], [1f, 2]).Save(_folder["model-00001-of-00002.safetensors"]);
        new SafetensorsWriter().Add("b", [1], [3f]).Save(_folder["model-00002-of-00002.safetensors"]);
        Index("""{"metadata":{"total_size":12},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}""");
        using var weights = SafetensorsFolder.Open(_folder.Path);
        Assert.Equal(["a", "b"], weights.Names.Order());
        Assert.Equal([1f, 2], weights.ReadFloat32("a"));
        Assert.Equal([3f], weights.ReadFloat32("b"));
        Assert.Equal($"{_folder.Path}: its weights have no tensor \"c\"; they have \"a\", \"b\"", Assert.Throws<InvalidFileException>(() => weights.ReadFloat32("c")).Message);
    }

    [Fact]
    public void One_file_needs_no_index()
    {
        new SafetensorsWriter().Add("a", [2], [1f, 2]).Save(_folder["model.safetensors"]);
        Index("this is not looked at");
        using var weights = SafetensorsFolder.Open(_folder.Path);
        Assert.Equal([2L], weights.Entry("a").Shape);
    }

    [Fact]
    public void A_missing_shard_and_a_missing_tensor_are_named()
    {
        Index("""{"weight_map":{"a":"one.safetensors"}}""");
        Assert.Equal($"{_folder["one.safetensors"]}: this shard is missing; model.safetensors.index.json needs it for \"a\"", Refusal());
        new SafetensorsWriter().Add("b", [1], [3f]).Save(_folder["one.safetensors"]);
        Assert.Equal($"{_folder["one.safetensors"]}: lacks tensor \"a\", which model.safetensors.index.json says is in it", Refusal());
    }

    [Fact]
    public void An_index_must_not_lead_out_of_its_folder()
    {
        Index("{\n\"weight_map\":{\n\"a\":\"../secret.safetensors\"}}");
        Assert.Equal($"{_folder["model.safetensors.index.json"]}: \"weight_map.a\" in line 3 names \"../secret.safetensors\", expected the name of a file in the same folder", Refusal());
    }

    [Fact]
    public void Folders_without_weights_are_refused()
    {
        Assert.Equal($"{_folder.Path}: has neither model.safetensors nor model.safetensors.index.json", Refusal());
        _folder.Write("pytorch_model.bin", "");
        Assert.Equal($"{_folder.Path}: has neither model.safetensors nor model.safetensors.index.json; its .bin weights are pickled Python, convert them to safetensors", Refusal());
        Assert.Equal($"{_folder["no"]}: no such folder", Assert.Throws<InvalidFileException>(() => SafetensorsFolder.Open(_folder["no"])).Message);
    }

    private void Index(string json) => _folder.Write("model.safetensors.index.json", json);

    private string Refusal() => Assert.Throws<InvalidFileException>(() => SafetensorsFolder.Open(_folder.Path)).Message;
}
