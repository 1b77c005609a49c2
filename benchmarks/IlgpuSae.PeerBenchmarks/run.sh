#!/usr/bin/env bash
# Builds the comparison with TorchSharp and starts it: ./run.sh gemm --threads 2 --rounds 5
# TorchSharp's native library asks for libstdc++ 13 (GLIBCXX_3.4.32) because of one initialiser. Where libstdc++ is
# older (Debian 12), the copy in the output folder is made to ask for what is there, and a shim has the initialiser.
set -euo pipefail
cd "$(dirname "$0")"
dotnet build -c Release -v q -nologo
out=bin/Release/net10.0/linux-x64
libstdcxx=$(ldconfig -p | awk '/libstdc\+\+\.so\.6 .*x86-64/ { print $NF }')
if ! grep -q GLIBCXX_3.4.32 "$libstdcxx"; then
  find "$out" -name libLibTorchSharp.so -exec python3 lower-glibcxx.py {} \;
  cc -shared -fPIC -O1 -o "$out/libiosinit.so" ios-init-shim.c
  export LD_PRELOAD="$PWD/$out/libiosinit.so:$libstdcxx"
fi
exec dotnet "$out/IlgpuSae.PeerBenchmarks.dll" "$@"
