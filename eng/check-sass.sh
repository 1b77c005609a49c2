#!/usr/bin/env bash
# Assembles every GPU kernel for sm_80 and sm_90 with NVIDIA's assembler (fetched by eng/gpu-tools.sh), checks registers
# and spills, and writes docs/gpu-kernels.md. Needs no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
eng/gpu-tools.sh
dotnet build tests/IlgpuSae.GpuTests -c Release -v q -nologo
PATH=$PWD/.gpu-tools/usr/bin:$PATH ILGPUSAE_KERNEL_TABLE=$PWD/docs/gpu-kernels.md \
  tests/IlgpuSae.GpuTests/bin/Release/net10.0/IlgpuSae.GpuTests --filter-class '*SassTests'
