using ILGPU;

namespace IlgpuSae.Kernels;

/// <summary>Running sums within a group of threads on ILGPU devices, through shared memory.</summary>
internal static class GroupScan
{
    /// <summary>Elements of shared memory a group needs: the largest group.</summary>
    internal const int Room = 256;

    /// <summary>
    /// The sum of <paramref name="value"/> over the threads before this one; <paramref name="total"/> is that over
    /// the whole group. All threads must call it.
    /// </summary>
    /// <param name="shared">Shared memory of <see cref="Room"/> elements.</param>
    /// <param name="value">This thread's part.</param>
    /// <param name="total">The group's sum.</param>
    internal static int Before(ArrayView<int> shared, int value, out int total)
    {
        shared[Group.IdxX] = value;
        Group.Barrier();
        for (var s = 1; s < Group.DimX; s <<= 1)
        {
            var other = Group.IdxX >= s ? shared[Group.IdxX - s] : 0;
            Group.Barrier();
            shared[Group.IdxX] += other;
            Group.Barrier();
        }

        total = shared[Group.DimX - 1];
        var before = shared[Group.IdxX] - value;
        Group.Barrier();
        return before;
    }
}
