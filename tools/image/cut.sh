#!/bin/sh
# What no stage opens, taken out of the image: `cut.sh [1]`, 1 for CPUs, in the image's build. docs/image.md has what each is and how much it was.
set -eu
packages=$("$VIRTUAL_ENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cd "$packages"
# For compiling against: headers, static libraries, debugging tools. On GPUs Triton and flashinfer compile at run time, against these.
if [ "${1:-}" ]; then
  rm -rf nvidia/*/include nvidia/*/bin torch/include torch/bin/protoc* torch/share triton/backends/nvidia/include triton/backends/nvidia/bin
fi
find . -name '*.a' -delete
rm -rf torch/test torch/bin/test_*
find . -type d \( -name tests -o -name test \) -path './*/*' \
  \( -path './pandas/*' -o -path './numpy/*' -o -path './scipy/*' -o -path './sklearn/*' -o -path './pyarrow/*' -o -path './sympy/*' -o -path './numba/*' \) \
  -prune -exec rm -rf {} +
