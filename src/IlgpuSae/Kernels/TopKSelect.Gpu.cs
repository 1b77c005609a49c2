using ILGPU;
using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

public static partial class TopKSelect
{
    private static SparseFeatures Gpu(TensorScope scope, GpuDevice device, Tensor dense, int k, Ranking ranking)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var offsets = scope.Zeros([n + 1], DType.I32);
        var limits = scope.New([n, 2], DType.I32);
        var grid = device.IsCuda ? n : Math.Min(n, 2);
        if (n > 0)
        {
            device.Launch(LimitKernel, (grid, device.GroupSize),
                dense.View<float>(), offsets.View<int>(), limits.View<int>(), n, m, k, (int)ranking);
        }

        var total = SparseFromDense.ScanTotal(device, offsets);
        var indices = scope.New([total], DType.I32);
        var values = scope.New([total]);
        if (total > 0)
        {
            device.Launch(FillKernel, (grid, device.GroupSize),
                dense.View<float>(), offsets.View<int>(), limits.View<int>(), indices.View<int>(), values.View<float>(), n, m, (int)ranking);
        }

        scope.Release(limits);
        return new SparseFeatures(m, offsets, indices, values);
    }

    /// <summary>
    /// The k largest elements of each row, without those that are not positive (of magnitudes: without zeros), written to room for k entries a row.
    /// </summary>
    /// <param name="scope">Lends scratch memory.</param>
    /// <param name="device">The tensors' device.</param>
    /// <param name="dense">F32 [rows, m]: rows first .. first+rows-1 of the whole.</param>
    /// <param name="k">1..m.</param>
    /// <param name="ranking">By value and positive, or by magnitude.</param>
    /// <param name="first">The first row's number in the whole.</param>
    /// <param name="counts">I32 [n + 1]: the number of row r goes to r + 1.</param>
    /// <param name="indices">I32 [n k].</param>
    /// <param name="values">F32 [n k].</param>
    internal static void GpuInto(
        TensorScope scope, GpuDevice device, Tensor dense, int k, Ranking ranking, int first, Tensor counts, Tensor indices, Tensor values)
    {
        int n = dense.Shape[0], m = dense.Shape[1];
        var grid = device.IsCuda ? n : Math.Min(n, 2);
        var limits = scope.New([n, 2], DType.I32);
        var rooms = scope.New([n], DType.I32);
        device.Launch(RoomKernel, (device.GridFor(n), device.GroupSize), rooms.View<int>(), first, k);
        device.Launch(LimitKernel, (grid, device.GroupSize),
            dense.View<float>(), counts.View<int>().SubView(first, n + 1), limits.View<int>(), n, m, k, (int)ranking);
        device.Launch(FillKernel, (grid, device.GroupSize),
            dense.View<float>(), rooms.View<int>(), limits.View<int>(), indices.View<int>(), values.View<float>(), n, m, (int)ranking);
        scope.Release(rooms);
        scope.Release(limits);
    }

    /// <summary>rooms[r] = where the room of row first + r starts.</summary>
    [GpuKernel]
    private static void RoomKernel(ArrayView<int> rooms, int first, int k)
    {
        for (var i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < rooms.Length; i += (long)Grid.DimX * Group.DimX)
            rooms[i] = (first + (int)i) * k;
    }

    /// <summary>
    /// Order-preserving key of a value, or of its magnitude (relu 2); with relu everything that is not positive has key 0.
    /// </summary>
    private static uint Key(float value, int relu)
    {
        if (relu == 2) value = MathF.Abs(value);
        if (relu != 0 && value <= 0f) return 0u;
        var bits = Interop.FloatAsInt(value + 0f);
        return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0xFFFFFFFFu : bits ^ ((bits & 0x80000000u) != 0u ? 0xFFFFFFFFu : 0x80000000u);
    }

    /// <summary>
    /// A group a row: finds the key of the k-th element byte by byte, from the counts of each byte among the elements
    /// whose upper bytes agree. limits[r] = that key, and how many of the elements that have it are kept.
    /// </summary>
    [GpuKernel]
    private static void LimitKernel(ArrayView<float> dense, ArrayView<int> offsets, ArrayView<int> limits, int rows, int columns, int k, int relu)
    {
        var counts = SharedMemory.Allocate<int>(256);
        var state = SharedMemory.Allocate<int>(2);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var at = (long)r * columns;
            var key = 0u;
            var wanted = k;
            for (var shift = 24; shift >= 0; shift -= 8)
            {
                for (var i = Group.IdxX; i < 256; i += Group.DimX) counts[i] = 0;
                Group.Barrier();
                // A shift by 32 is none on the hardware: the first round compares nothing.
                var mask = shift == 24 ? 0u : 0xFFFFFFFFu << (shift + 8);
                for (var c = Group.IdxX; c < columns; c += Group.DimX)
                {
                    var mine = Key(dense[at + c], relu);
                    var digit = (int)((mine >> shift) & 255u);
                    // Nobody asks how many have digit 0, which with relu is most of them, all adding to one place.
                    if ((mine & mask) == key && digit != 0) Atomic.Add(ref counts[digit], 1);
                }

                Group.Barrier();
                if (Group.IdxX == 0)
                {
                    var digit = 255;
                    var above = 0;
                    while (digit > 0 && above + counts[digit] < wanted)
                    {
                        above += counts[digit];
                        digit--;
                    }

                    state[0] = digit;
                    state[1] = wanted - above;
                }

                Group.Barrier();
                key |= (uint)state[0] << shift;
                wanted = state[1];
                Group.Barrier();
            }

            if (Group.IdxX == 0)
            {
                // With relu a limit of 0 means that fewer than k are positive, and none of the rest is stored.
                limits[(2 * r) + 0] = (int)key;
                limits[(2 * r) + 1] = relu != 0 && key == 0u ? 0 : wanted;
                offsets[r + 1] = relu != 0 && key == 0u ? k - wanted : k;
            }
        }
    }

    /// <summary>Writes the kept elements of a row in order; a group a row, a tile of the group's size at a time.</summary>
    [GpuKernel]
    private static void FillKernel(
        ArrayView<float> dense, ArrayView<int> offsets, ArrayView<int> limits, ArrayView<int> indices, ArrayView<float> values,
        int rows, int columns, int relu)
    {
        var shared = SharedMemory.Allocate<int>(GroupScan.Room);
        for (var r = Grid.IdxX; r < rows; r += Grid.DimX)
        {
            var limit = (uint)limits[2 * r];
            var ties = limits[(2 * r) + 1];
            var at = offsets[r];
            for (var tile = 0; tile < columns; tile += Group.DimX)
            {
                var c = tile + Group.IdxX;
                var value = c < columns ? dense[((long)r * columns) + c] : 0f;
                var key = Key(value, relu);
                var tie = c < columns && key == limit ? 1 : 0;
                var tiesBefore = GroupScan.Before(shared, tie, out var tiesHere);
                var kept = (c < columns && key > limit) || (tie != 0 && tiesBefore < ties) ? 1 : 0;
                var before = GroupScan.Before(shared, kept, out var keptHere);
                if (kept != 0)
                {
                    indices[at + before] = c;
                    values[at + before] = value;
                }

                at += keptHere;
                ties -= tiesHere;
            }
        }
    }
}
