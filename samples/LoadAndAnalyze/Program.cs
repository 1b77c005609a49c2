using IlgpuSae.Hub;
using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Runs;
using IlgpuSae.Saes;
using IlgpuSae.Tensors;
using IlgpuSae.Tokenizers;

// usage: LoadAndAnalyze [MODEL RELEASE SAE_ID TEXT], such as
//   LoadAndAnalyze gpt2-small gpt2-small-res-jb blocks.8.hook_resid_pre "The capital of France is Paris"
// Which features of a published SAE are strongest at each position of a text, and how well it reconstructs. Without
// arguments a tiny random model and SAE stand in, so that the sample runs without a network.
using var device = Device.Open("cpu");
using var hub = new HubClient(HubOptions.FromEnvironment() with { Note = Console.Error.WriteLine });
var folder = args.Length > 0 ? ModelReference.Fetch(args[0], () => hub) : null;
using var model = folder is not null ? HookedTransformer.Load(folder, device) : HookedTransformer.WithRandomWeights(Tiny(), device, seed: 1, deviation: 0.3f);
using var sae = args.Length > 2 ? Sae.FromPretrained(args[1], args[2], device, hub) : RandomSae(device, model.Spec.DModel);
var hook = sae.Config.Metadata.Get<string>("hook_name") ?? "blocks.0.hook_resid_post";

// Tokens: SAEs are used as they were trained, most of them with BOS in front.
var tokenizer = folder is null ? null : Tokenizer.Load(folder);
var prependBos = sae.Config.Metadata.Get("prepend_bos", true);
int[] ids = tokenizer?.Encode(args.Length > 3 ? args[3] : "The capital of France is Paris", addBos: prependBos && tokenizer.BosToken is not null) ?? [1, 5, 9, 2, 7];

// One pass of the model, which stops behind the hook; then encode and decode.
using var scope = new TensorScope(device);
var activations = model.Activations(scope, HookedTransformer.Tokens(scope, [ids]), hook)[hook];
var features = sae.Encode(scope, activations, out var frame);
float[] x = activations.ToArray<float>(), reconstruction = sae.Decode(scope, features, frame).ToArray<float>();

int[] offsets = features.RowOffsets.ToArray<int>(), indices = features.Indices.ToArray<int>();
var values = features.Values.ToArray<float>();
Console.WriteLine($"{hook}: {features.L0:0.0} of {features.Columns} features active on average");
for (var position = 0; position < ids.Length; position++)
{
    var top = Enumerable.Range(offsets[position], offsets[position + 1] - offsets[position]).OrderByDescending(e => values[e]).Take(3);
    var token = tokenizer is null ? $"{ids[position]}" : $"\"{tokenizer.TokenString(ids[position])}\"";
    Console.WriteLine($"position {position}, token {token}: {string.Join(", ", top.Select(e => $"#{indices[e]} {values[e]:0.00}"))}; "
        + $"reconstruction error {Error(position):0.0%} of the norm");
}

// |x - reconstruction| / |x| at a position.
double Error(int position)
{
    var width = x.Length / ids.Length;
    double error = 0, norm = 0;
    for (var i = position * width; i < (position + 1) * width; i++)
    {
        error += Math.Pow(x[i] - reconstruction[i], 2);
        norm += Math.Pow(x[i], 2);
    }

    return Math.Sqrt(error / norm);
}

static ModelSpec Tiny() => new()
{
    Architecture = "LlamaForCausalLM",
    DModel = 16,
    NLayers = 2,
    NHeads = 2,
    NKvHeads = 2,
    DHead = 8,
    DMlp = 32,
    NCtx = 32,
    DVocab = 20,
    Norm = NormKind.RmsNorm,
    Eps = 1e-5f,
    Activation = ActivationKind.Silu,
    GatedMlp = true,
    Positions = PositionKind.Rotary,
    RotaryDim = 8,
};

static Sae RandomSae(Device device, int width)
{
    using var sae = SaeRegistry.Default.CreateForTraining(new TopKTrainingConfig { DIn = width, DSae = 64, K = 8 }, device, seed: 1);
    return sae.ToInference();
}
