namespace IlgpuSae.Activations;

/// <summary>
/// Upper tail of the standard normal distribution, Q(t) = P(z > t), and decisions by it. Only correctly rounded
/// operations are used, so that results do not depend on the machine's mathematics library.
/// </summary>
internal sealed class NormalTail
{
    private const float Range = 8;
    private const int CellsPerUnit = 64;
    private const double Margin = 1e-12;
    private readonly ulong[] _fires;
    private readonly ulong[] _doesNot;

    /// <summary>Tabulates bounds of Q: in 99 of 100 cases a decision needs no more than these.</summary>
    public NormalTail()
    {
        var cells = (int)(2 * Range * CellsPerUnit);
        _fires = new ulong[cells];
        _doesNot = new ulong[cells];
        for (var c = 0; c < cells; c++)
        {
            double from = ((double)c / CellsPerUnit) - Range, to = ((c + 1.0) / CellsPerUnit) - Range;
            _fires[c] = (ulong)Math.Floor(Math.Max(0, (Upper(to) * (1 - Margin) * 4294967296.0) - 0.5));
            _doesNot[c] = (ulong)Math.Ceiling((Upper(from) * (1 + Margin) * 4294967296.0) + 0.5);
        }
    }

    /// <summary>Whether a standard normal number, given by its upper tail as a random word, lies above a threshold.</summary>
    /// <param name="word">(word + 1/2) 2^-32 is Q of the number.</param>
    /// <param name="threshold">t; infinities are allowed.</param>
    public bool IsAbove(uint word, float threshold)
    {
        if (!(threshold > -Range)) return true;
        if (threshold >= Range) return false;
        var cell = Math.Min((int)((threshold + Range) * CellsPerUnit), _fires.Length - 1);
        if (word >= _doesNot[cell]) return false;
        return word < _fires[cell] || (word + 0.5) / 4294967296.0 < Upper(threshold);
    }

    /// <summary>Q(t), to about 1e-14 of itself.</summary>
    /// <param name="t">Any number.</param>
    public static double Upper(double t)
    {
        if (t < 0) return 1 - Upper(-t);
        if (t > 38) return 0;
        var density = Density(t);
        if (t < 2.5)
        {
            // Phi(t) - 1/2 = density (t + t^3/3 + t^5/(3 5) + ...)
            double term = t, sum = t;
            for (var k = 3; k < 120 && term > 1e-17 * sum; k += 2) sum += term *= t * t / k;
            return 0.5 - (density * sum);
        }

        // Q(t) = density / (t + 1/(t + 2/(t + 3/(t + ...)))), from the inside out.
        var fraction = t;
        for (var k = 120; k > 0; k--) fraction = t + (k / fraction);
        return density / fraction;
    }

    /// <summary>The t with Q(t) = p; minus infinity for 1.</summary>
    /// <param name="p">In (0, 1].</param>
    public static double Inverse(double p)
    {
        if (p >= 1) return double.NegativeInfinity;
        if (p > 0.5) return -Inverse(1 - p);
        double low = 0, high = 38;
        for (var k = 0; k < 12; k++)
        {
            var middle = (low + high) / 2;
            if (Upper(middle) > p) low = middle;
            else high = middle;
        }

        var t = low;
        // Q is convex here, so Newton's steps from the left never overshoot.
        for (var k = 0; k < 8; k++) t += (Upper(t) - p) / Density(t);
        return t;
    }

    private static double Density(double t) => Exp(-t * t / 2) * 0.3989422804014327;

    /// <summary>e^x for x at most 0: 2^n e^r, |r| at most ln 2 / 2, by Taylor's series.</summary>
    private static double Exp(double x)
    {
        var n = (int)Math.Round(x * 1.4426950408889634);
        var r = (x - (n * 0.693147180369123816490)) - (n * 1.90821492927058770002e-10);
        double term = 1, sum = 1;
        for (var k = 1; k < 20; k++) sum += term *= r / k;
        return Math.ScaleB(sum, n);
    }
}
