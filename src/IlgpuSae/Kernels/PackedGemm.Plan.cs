using IlgpuSae.Tensors;

namespace IlgpuSae.Kernels;

/// <summary>How a product is cut. Decides speed alone, never a bit of the result.</summary>
internal static unsafe partial class PackedGemm
{
    /// <summary>Ranges of nearly one size, whole panels each, so that threads end together.</summary>
    private readonly struct Cut
    {
        private readonly int _count;
        private readonly int _unit;

        internal Cut(int count, int unit, int largest)
        {
            _count = count;
            _unit = unit;
            Pieces = PackedGemm.Pieces(count, largest);
        }

        internal Cut(int count, int unit, int largest, int multiple)
            : this(count, unit, largest) =>
            Pieces = Math.Min(RoundUp(Pieces, multiple), PackedGemm.Pieces(count, unit));

        internal int Pieces { get; }

        internal (int First, int Count) this[int piece]
        {
            get
            {
                var panels = (long)PackedGemm.Pieces(_count, _unit);
                var first = (int)(panels * piece / Pieces) * _unit;
                return (first, Math.Min(_count, (int)(panels * (piece + 1) / Pieces) * _unit) - first);
            }
        }
    }

    private readonly struct Plan
    {
        /// <summary>Rows of a that are packed at a time.</summary>
        internal int SuperRows { get; private init; }

        /// <summary>Columns of b that are packed at a time.</summary>
        internal int ChunkColumns { get; private init; }

        /// <summary>Most rows of a piece.</summary>
        internal int BlockRows { get; private init; }

        /// <summary>Most columns of a piece.</summary>
        internal int GroupColumns { get; private init; }

        /// <summary>Steps along k at a time.</summary>
        internal int BlockSteps { get; private init; }

        /// <summary>Whether a is packed before b's columns are cut into pieces.</summary>
        internal bool SharesA { get; private init; }

        /// <summary>Whether b is packed before a's rows are cut into pieces.</summary>
        internal bool SharesB { get; private init; }

        /// <summary>Bytes of packed a.</summary>
        internal long ScratchA { get; private init; }

        /// <summary>Bytes of packed b.</summary>
        internal long ScratchB { get; private init; }

        internal static Plan For<TKernel>(CpuDevice device, in GemmProblem p)
            where TKernel : IGemmMicroKernel
        {
            int mr = TKernel.Rows, nr = TKernel.Columns;
            int m = p.M, n = p.N, k = Math.Max(1, p.K);
            var steps = Math.Min(k, RoundUp(Pieces(k, Pieces(k, LongestBlock)), 8));
            var super = (int)Math.Min(RoundUp(m, mr), Math.Max(1, PackedAFloats / k / mr) * mr);
            var chunk = (int)Math.Min(RoundUp(n, nr), Math.Max(1, PackedBFloats / k / nr) * nr);
            var block = Math.Min(super, Math.Max(1, BlockFloats / steps / mr) * mr);
            var group = Math.Min(chunk, RoundUp(512, nr));
            var oneChunk = chunk >= n;

            // Pieces are halved until every thread has several, as long as they are worth a thread.
            var few = m <= 4 * mr;
            if (few) group = Math.Min(group, Math.Max(1, (PieceFloats / k) / nr) * nr);
            var rowsAlone = !few && oneChunk && (m > super || (long)m * n * k < SharedWork);
            var wanted = device.Threads * 4L;
            long Count() => (few ? 1L : Pieces(Math.Min(super, m), block)) * (rowsAlone ? 1L : Pieces(Math.Min(chunk, n), group));
            long Work() => (long)Math.Min(block, m) * (rowsAlone ? n : group) * k;
            while (Count() < wanted && Work() >= 2 * SmallestPiece)
            {
                if (!rowsAlone && group > nr && (few || group > 4 * nr || block <= 2 * mr)) group = RoundUp(group / 2, nr);
                else if (!few && block > mr) block = RoundUp(block / 2, mr);
                else break;
            }

            return new Plan
            {
                SuperRows = super,
                ChunkColumns = chunk,
                BlockRows = block,
                GroupColumns = group,
                BlockSteps = steps,
                SharesA = !few && !rowsAlone,
                SharesB = !few,
                ScratchA = (long)(few ? RoundUp(m, mr) : super) * k * sizeof(float),
                ScratchB = (long)chunk * k * sizeof(float),
            };
        }
    }
}
