using BenchmarkDotNet.Running;
using IlgpuSae.Benchmarks;

// dotnet run -c Release --project benchmarks/IlgpuSae.Benchmarks -- --filter '*Gemm*' --job short
if (args is ["architectures", ..]) ArchitectureComparison.Run(args[1..]);
else BenchmarkSwitcher.FromAssembly(typeof(Program).Assembly).Run(args);
