using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace IlgpuSae.Kernels;

/// <summary>
/// Selections in the product's epilogue: a tile of pre-activations is compared while it lies in the first-level cache,
/// and only what passes is stored. Another selection (thresholds a feature, a threshold a batch) is another epilogue.
/// What is not below or equal passes, so NaN does.
/// </summary>
public static partial class EncodeSelect
{
    /// <summary>Lanes 0..n-1 (n at most 16) of <paramref name="p"/> that are not &lt;= limit, as bits.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static unsafe uint Passing(float* p, Vector512<float> limit, int n)
    {
        var below = (uint)Vector512.LessThanOrEqual(Vector512.Load(p), limit).ExtractMostSignificantBits();
        return ~below & (n >= 16 ? 0xFFFFu : (1u << n) - 1);
    }

    /// <summary>Stores what is positive.</summary>
    private readonly unsafe struct ReluEpilogue(EntryChunks chunks, EntryList* lists) : ITileEpilogue
    {
        private readonly EntryChunks _chunks = chunks;
        private readonly EntryList* _lists = lists;

        public void BeginRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++) _lists[r].Clear();
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Tile(int row, int rows, int column, int columns, float* sums, int stride)
        {
            for (var r = 0; r < rows; r++, sums += stride)
            {
                for (var j = 0; j < columns; j += 16)
                {
                    var bits = Passing(sums + j, Vector512<float>.Zero, columns - j);
                    if (bits != 0) _lists[row + r].Add(_chunks, column + j, sums + j, bits);
                }
            }
        }

        public void EndRows(int row, int rows)
        {
            // The lists are copied when all their lengths are known.
        }
    }

    /// <summary>Stores what lies above its feature's limit.</summary>
    private readonly unsafe struct AboveEpilogue(EntryChunks chunks, EntryList* lists, float* limits, float* scale) : ITileEpilogue
    {
        private readonly EntryChunks _chunks = chunks;
        private readonly EntryList* _lists = lists;
        private readonly float* _limits = limits;
        private readonly float* _scale = scale;

        public void BeginRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++) _lists[r].Clear();
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Tile(int row, int rows, int column, int columns, float* sums, int stride)
        {
            for (var j = 0; j < columns; j += 16)
            {
                var limit = Vector512.Load(_limits + column + j);
                var p = sums + j;
                for (var r = 0; r < rows; r++, p += stride)
                {
                    if (_scale != null) (Vector512.Load(p) * Vector512.Load(_scale + column + j)).Store(p);
                    var bits = Passing(p, limit, columns - j);
                    if (bits != 0) _lists[row + r].Add(_chunks, column + j, p, bits);
                }
            }
        }

        public void EndRows(int row, int rows)
        {
            // The lists are copied when all their lengths are known.
        }
    }

    /// <summary>
    /// Keeps candidates above a row's running threshold; when their buffer is full they are reduced to the k largest, and
    /// the smallest of those is the new threshold. Columns come in ascending order, so what equals it loses the tie.
    /// </summary>
    private unsafe struct TopKEpilogue : ITileEpilogue
    {
        internal int K;
        internal int Capacity;
        internal ulong* Keys;
        internal float* Thresholds;
        internal int* Counts;
        internal float* Scale;
        internal int* Indices;
        internal float* Values;

        public readonly void BeginRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++)
            {
                Thresholds[r] = 0;
                Counts[r] = 0;
            }
        }

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public readonly void Tile(int row, int rows, int column, int columns, float* sums, int stride)
        {
            for (var r = 0; r < rows; r++, sums += stride)
            {
                var limit = Vector512.Create(Thresholds[row + r]);
                for (var j = 0; j < columns; j += 16)
                {
                    if (Scale != null)
                    {
                        if (columns - j >= 16) (Vector512.Load(sums + j) * Vector512.Load(Scale + column + j)).Store(sums + j);
                        else for (var i = j; i < columns; i++) sums[i] *= Scale[column + i];
                    }

                    var bits = Passing(sums + j, limit, columns - j);
                    if (bits == 0) continue;
                    Insert(row + r, column + j, sums + j, bits);
                    limit = Vector512.Create(Thresholds[row + r]);
                }
            }
        }

        public readonly void EndRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++)
            {
                var keys = Keys + ((long)r * Capacity);
                if (Counts[r] > K) TopKKey.Select(keys, Counts[r], K);
                Counts[r] = TopKKey.Write(keys, Math.Min(Counts[r], K), positive: true, Indices + ((long)r * K), Values + ((long)r * K));
            }
        }

        private readonly void Insert(int row, int column, float* values, uint bits)
        {
            var keys = Keys + ((long)row * Capacity);
            var count = Counts[row];
            for (; bits != 0; bits &= bits - 1)
            {
                if (count == Capacity)
                {
                    Thresholds[row] = TopKKey.Value(TopKKey.Select(keys, count, K));
                    count = K;
                }

                var i = BitOperations.TrailingZeroCount(bits);
                keys[count++] = TopKKey.Of(values[i], column + i);
            }

            Counts[row] = count;
        }
    }

    /// <summary>The same by magnitude: the sign travels in the key's lowest bit.</summary>
    private readonly unsafe struct AbsTopKEpilogue(TopKEpilogue by) : ITileEpilogue
    {
        private readonly TopKEpilogue _by = by;

        public void BeginRows(int row, int rows) => _by.BeginRows(row, rows);

        [MethodImpl(MethodImplOptions.AggressiveOptimization)]
        public void Tile(int row, int rows, int column, int columns, float* sums, int stride)
        {
            for (var r = 0; r < rows; r++, sums += stride)
            {
                for (var j = 0; j < columns; j += 16)
                {
                    if (_by.Scale != null)
                    {
                        if (columns - j >= 16) (Vector512.Load(sums + j) * Vector512.Load(_by.Scale + column + j)).Store(sums + j);
                        else for (var i = j; i < columns; i++) sums[i] *= _by.Scale[column + i];
                    }

                    var below = (uint)Vector512.LessThanOrEqual(
                        Vector512.Abs(Vector512.Load(sums + j)), Vector512.Create(_by.Thresholds[row + r])).ExtractMostSignificantBits();
                    var bits = ~below & (columns - j >= 16 ? 0xFFFFu : (1u << (columns - j)) - 1);
                    if (bits != 0) Insert(row + r, column + j, sums + j, bits);
                }
            }
        }

        public void EndRows(int row, int rows)
        {
            for (var r = row; r < row + rows; r++)
            {
                var keys = _by.Keys + ((long)r * _by.Capacity);
                if (_by.Counts[r] > _by.K) TopKKey.Select(keys, _by.Counts[r], _by.K);
                _by.Counts[r] = TopKKey.WriteSigned(keys, Math.Min(_by.Counts[r], _by.K), _by.Indices + ((long)r * _by.K), _by.Values + ((long)r * _by.K));
            }
        }

        private void Insert(int row, int column, float* values, uint bits)
        {
            var keys = _by.Keys + ((long)row * _by.Capacity);
            var count = _by.Counts[row];
            for (; bits != 0; bits &= bits - 1)
            {
                if (count == _by.Capacity)
                {
                    _by.Thresholds[row] = TopKKey.Value(TopKKey.Select(keys, count, _by.K));
                    count = _by.K;
                }

                var i = BitOperations.TrailingZeroCount(bits);
                keys[count++] = TopKKey.OfMagnitude(values[i], column + i);
            }

            _by.Counts[row] = count;
        }
    }
}
