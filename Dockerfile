# One image: the operator, every stage, rlhfctl.
#
#   CUDA  docker build -t rlhf-operator:0.1.0 .
#   CPU   docker build -t rlhf-operator:0.1.0-cpu --build-arg LOCK=locks/cpu.lock --build-arg COMPILER= --build-arg TORCHDYNAMO_DISABLE=1 .
#
# Layers over the base: system packages, everything that the lock names, and the project, which alone changes with a commit.
# The CUDA libraries come with the lock, as wheels; the driver comes from the node. So any Debian with Python 3.11 will do as BASE.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS base
# Triton compiles the launchers of its kernels as they are first used; on CPUs nothing is compiled at run time.
ARG COMPILER="g++ python3-dev"
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends python3 python3-venv libnuma1 ca-certificates ${COMPILER} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

FROM base AS dependencies
ARG LOCK=locks/gpu.lock
ARG TORCHDYNAMO_DISABLE=
# Copied, not mounted: not every builder sees that what it mounts has changed. And so the image says how it was made.
COPY ${LOCK} /usr/share/rlhf-operator/requirements.lock
COPY tools/image locks/build.lock /usr/share/rlhf-operator/build/
RUN sh /usr/share/rlhf-operator/build/dependencies.sh /usr/share/rlhf-operator/requirements.lock

FROM base AS project
COPY pyproject.toml README.md LICENSE /src/
COPY crds /src/crds
COPY operator /src/operator
COPY trainer /src/trainer
COPY cli /src/cli
COPY tools/image/project.sh locks/build.lock /build/
RUN sh /build/project.sh /src /opt/project

FROM dependencies
COPY --from=project /opt/project /opt/project
ARG TORCHDYNAMO_DISABLE=
# GPUs are for pods that ask for them: the device plugin says which, and void is none. /opt/rules is for rules of users (docs/rules.md):
# a manifest may set no variable of Python's. The last line: nothing that a run does is told to anybody.
ENV PATH=/opt/rlhf/bin:/opt/project/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/home/rlhf \
    PYTHONPATH=/opt/rules PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 TORCHDYNAMO_DISABLE=${TORCHDYNAMO_DISABLE} \
    NVIDIA_VISIBLE_DEVICES=void NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1
# Nobody in particular: no file of the image is this user's.
USER 65532:65532
CMD ["python", "-m", "rlhf_operator.kubernetes"]
LABEL org.opencontainers.image.title=rlhf-operator org.opencontainers.image.licenses=Apache-2.0
