#!/bin/sh
# What DeepSpeed would compile at every start of a training on CPUs, compiled once: `build_ops.sh UV LOCK`, in the image's build.
# On GPUs nothing would be: its optimizer is torch's, and its communication NCCL's.
set -eu
uv=$1 lock=$2
# The builder's own processor is not the cluster's. The kernel is compiled for any x86-64 and finds out at run time what more there is
# (vector_kernel_level); should a version of DeepSpeed ask for -march=native, this fails.
bin=$(mktemp -d)
for name in c++ g++ gcc cc x86_64-linux-gnu-gcc x86_64-linux-gnu-g++; do
  real=$(command -v "$name") || continue
  cat > "$bin/$name" << END
#!/bin/sh
case " \$* " in *" -march=native "*) echo "This would run on the builder's processor only: \$*" >&2; exit 1 ;; esac
exec $real "\$@"
END
  chmod +x "$bin/$name"
done
# The block of one package, with its hashes.
awk '/^[a-z]/ { ours = /^deepspeed==/ } ours' "$lock" > /tmp/deepspeed.lock
PATH=$bin:$VIRTUAL_ENV/bin:$PATH DS_BUILD_SHM_COMM=1 DS_ACCELERATOR=cpu "$uv" pip install --quiet --no-deps --no-build-isolation \
  --compile-bytecode --reinstall-package deepspeed --require-hashes -r /tmp/deepspeed.lock
"$VIRTUAL_ENV/bin/python" -c '
from deepspeed.git_version_info import installed_ops
assert installed_ops["deepspeed_shm_comm"], installed_ops
'
