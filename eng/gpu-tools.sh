#!/usr/bin/env bash
# Fetches NVIDIA's PTX assembler and disassembler (ptxas, nvdisasm) for the checks of the GPU kernels, without
# installing anything: Debian's package nvidia-cuda-toolkit (component non-free) is downloaded with apt from the mirror
# this machine is configured for, and unpacked into .gpu-tools/, which git ignores. They need no GPU.
# NVIDIA's licence applies to them; they are not part of this project and not redistributed.
# usage: eng/gpu-tools.sh [SUITE]        (trixie: CUDA 12.4; bookworm: CUDA 11.8)
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-trixie}
tools=$PWD/.gpu-tools
if [ -x "$tools/usr/bin/ptxas" ] && [ -x "$tools/usr/bin/nvdisasm" ]; then
  "$tools/usr/bin/ptxas" --version | tail -2
  exit 0
fi
command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "this script needs Debian's apt and dpkg" >&2; exit 1; }

# The mirror: that of the first archive apt is configured for which is not the security archive.
mirror=$(apt-get update --print-uris | sed -n "s#^'\(.*\)/dists/.*#\1#p" | grep -v -- security | head -1)
keyring=$(ls /usr/share/keyrings/debian-archive-keyring.* | head -1)
[ -n "$mirror" ] || { echo "apt knows no mirror: check /etc/apt/sources.list" >&2; exit 1; }

# Lists and downloads stay in .gpu-tools: the system's own apt state is not touched.
mkdir -p "$tools/apt/lists/partial" "$tools/apt/archives/partial"
printf 'deb [signed-by=%s] %s %s non-free\n' "$keyring" "$mirror" "$suite" > "$tools/apt/sources.list"
options=(
  -o "Dir::Etc::SourceList=$tools/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
  -o "Dir::State::Lists=$tools/apt/lists" -o "Dir::Cache=$tools/apt" -o "Dir::Cache::Archives=$tools/apt/archives"
  -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Sandbox::User=
)
apt-get "${options[@]}" -qq update
(cd "$tools/apt/archives" && apt-get "${options[@]}" -qq download nvidia-cuda-toolkit)
for package in "$tools"/apt/archives/*.deb; do
  # Only the two tools: the whole package is ten times as large.
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$tools" --wildcards './usr/bin/ptxas' './usr/bin/nvdisasm'
done
rm -rf "$tools/apt"
"$tools/usr/bin/ptxas" --version | tail -2
