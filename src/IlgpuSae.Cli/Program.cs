using System.Runtime.InteropServices;
using IlgpuSae.Cli;

using var interrupt = new CancellationTokenSource();

// The first signal asks for a clean stop; the second ends the process the system's way.
void Stop(PosixSignalContext context)
{
    if (interrupt.IsCancellationRequested) return;
    context.Cancel = true;
    interrupt.Cancel();
}

using var sigint = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
using var sigterm = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
return CommandLine.Run(args, Console.Out, Console.Error, interrupt.Token);
