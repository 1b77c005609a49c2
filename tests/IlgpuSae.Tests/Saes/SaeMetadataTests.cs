using System.Text.Json.Nodes;
using IlgpuSae.Saes;
using Xunit;

namespace IlgpuSae.Tests.Saes;

public sealed class SaeMetadataTests
{
    [Fact]
    public void An_absent_key_reads_as_null_and_a_set_null_is_known()
    {
        var m = new SaeMetadata(new JsonObject { ["hook_name"] = "blocks.0.hook_resid_pre", ["hook_head_index"] = null, ["context_size"] = 128 });
        Assert.Null(m["model_name"]);
        Assert.False(m.Contains("model_name"));
        Assert.True(m.Contains("hook_head_index"));
        Assert.Equal(128, m.Get<int>("context_size"));
        Assert.Equal(64, m.Get("hook_head_index", 64));
        Assert.Equal("?", m.Get("context_size", "?"));
    }

    [Fact]
    public void Notes_are_values()
    {
        var m = new SaeMetadata().With("model_name", "gpt2");
        Assert.Equal(new SaeMetadata().With("model_name", "gpt2"), m);
        Assert.NotEqual(new SaeMetadata().With("model_name", "gpt3"), m);
        Assert.Null(new SaeMetadata()["model_name"]);
        m["model_name"]!.AsValue();
        var json = m.ToJson();
        json["model_name"] = "changed";
        Assert.Equal("gpt2", m.Get<string>("model_name"));
    }
}
