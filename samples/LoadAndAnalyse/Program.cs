using IlgpuSae.Kernels;
using IlgpuSae.Models;
using IlgpuSae.Saes;
using IlgpuSae.Saes.Formats;
using IlgpuSae.Tensors;

// usage: LoadAndAnalyse [MODEL_FOLDER SAE_FOLDER]: which features of the SAE are strongest at each position.
// Without folders a tiny random model and SAE stand in, so that the sample runs anywhere.
using var device = Device.Open("cpu");
using var model = args.Length > 0 ? HookedTransformer.Load(args[0], device) : HookedTransformer.WithRandomWeights(Tiny(), device, seed: 1, deviation: 0.3f);
using var sae = args.Length > 1 ? SaeLensFolder.Load(args[1], device) : RandomSae(device, model.Spec.DModel);
var hook = sae.Config.Metadata.Get<string>("hook_name") ?? "blocks.0.hook_resid_post";

using var scope = new TensorScope(device);
int[] ids = [1, 5, 9, 2, 7];
var activations = model.Activations(scope, HookedTransformer.Tokens(scope, [ids]), hook)[hook];
var features = sae.Encode(scope, activations);

int[] offsets = features.RowOffsets.ToArray<int>(), indices = features.Indices.ToArray<int>();
var values = features.Values.ToArray<float>();
Console.WriteLine($"{hook}: {features.L0:0.0} of {features.Columns} features active on average");
for (var position = 0; position < ids.Length; position++)
{
    var top = Enumerable.Range(offsets[position], offsets[position + 1] - offsets[position]).OrderByDescending(e => values[e]).Take(3);
    Console.WriteLine($"position {position}, token {ids[position]}: {string.Join(", ", top.Select(e => $"#{indices[e]} {values[e]:0.00}"))}");
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
