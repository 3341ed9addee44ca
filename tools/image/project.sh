#!/bin/sh
# The project's own layer: `project.sh SOURCE TARGET`, in the image's build.
set -eu
source=$1 target=$2
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1
python3 -m venv /tmp/uv
/tmp/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --require-hashes \
  --requirement "$(dirname "$0")/build.lock"
/tmp/uv/bin/uv build --quiet --wheel --no-build-isolation --python /tmp/uv/bin/python --out-dir /tmp/dist "$source"
/tmp/uv/bin/uv pip install --quiet --no-deps --python python3 --target "$target" --compile-bytecode /tmp/dist/*.whl
# It names the builder's interpreter; the stages' one has everything that it imports.
sed -i '1s|.*|#!/opt/rlhf/bin/python|' "$target/bin/rlhfctl"
# uv's own, which everybody may write to.
rm -f "$target/.lock"
