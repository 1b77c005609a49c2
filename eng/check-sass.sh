#!/usr/bin/env bash
# Assembles every GPU kernel for sm_80 and sm_90 with NVIDIA's assembler (fetched by eng/gpu-tools.sh), checks registers
# and spills, and writes docs/gpu-kernels.md. Needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
eng/gpu-tools.sh
dotnet build tests/IlgpuSae.GpuTests -c Release -v q -nologo
ILGPUSAE_WRITE_KERNEL_TABLE=1 tests/IlgpuSae.GpuTests/bin/Release/net10.0/IlgpuSae.GpuTests --filter-class '*SassTests'
