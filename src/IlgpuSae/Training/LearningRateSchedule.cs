namespace IlgpuSae.Training;

/// <summary>
/// Learning rate of each step, as SAELens 6.18's schedulers give it: linear warm-up to lr, then the named schedule, then
/// linear decay to 0 from lr (<c>constant</c>) or lr_end (cosine).
/// </summary>
internal sealed class LearningRateSchedule
{
    private readonly long _warmUp, _decay, _total;
    private readonly double _lr, _end;
    private readonly long _period;

    /// <summary>Lays the schedule out over the run.</summary>
    /// <param name="config">Its settings.</param>
    /// <exception cref="InvalidInputException">The schedule is unknown or its parts do not fit together.</exception>
    public LearningRateSchedule(TrainerConfig config)
    {
        (_warmUp, _decay, _total) = (config.LrWarmUpSteps, config.LrDecaySteps, config.TotalSteps);
        (_lr, _end) = (config.Lr, config.EndLr);
        var middle = Math.Max(_total - _warmUp - _decay, 1);
        if (config.LrSchedulerName.Equals("constant", StringComparison.OrdinalIgnoreCase))
        {
            _end = _lr;
            return;
        }

        _period = config.LrSchedulerName.ToUpperInvariant() switch
        {
            "COSINEANNEALING" => middle,
            "COSINEANNEALINGWARMRESTARTS" => middle / config.NRestartCycles,
            _ => throw new InvalidInputException(
                $"lr_scheduler_name: \"{config.LrSchedulerName}\" is not known; known: constant, cosineannealing, cosineannealingwarmrestarts"),
        };
        Restarts = config.LrSchedulerName.Length > "cosineannealing".Length;
        if (_period < 1)
            throw new InvalidInputException($"n_restart_cycles: {config.NRestartCycles} periods do not fit into the {middle} steps between warm-up and decay");
        if (_decay > 0 && _end == 0)
            throw new InvalidInputException($"lr_end: 0 leaves nothing for lr_decay_steps = {_decay} to decay from; set one of them");
    }

    private bool Restarts { get; }

    /// <summary>Learning rate of a step.</summary>
    /// <param name="step">Steps completed before it; may lie past the end.</param>
    public double At(long step)
    {
        if (step < _warmUp) return _lr * (step + 1) / _warmUp;
        var decayed = step - (_total - _decay);
        if (_decay > 0 && decayed >= 0) return Math.Max(0, _end * (1 - ((double)decayed / _decay)));
        if (_period == 0) return _lr;
        var t = step - _warmUp;
        if (Restarts) t %= _period;
        return _end + ((_lr - _end) * (1 + Math.Cos(Math.PI * t / _period)) / 2);
    }
}
