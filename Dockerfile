# The task image: a static dockless under all its names, and the tools that native builds expect around it.
# `make release` builds this file with dockless itself; any builder of Dockerfiles will do.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# A base that has everything already is left as it is, so that the image can be built with no network.
RUN <<EOF
set -eu
for tool in make bash git jq curl update-ca-certificates; do
    command -v "$tool" >/dev/null && continue
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        bash ca-certificates coreutils curl git jq make
    rm -rf /var/lib/apt/lists/*
    break
done
EOF

ARG BINARY=target/dockless
COPY --chmod=0755 ${BINARY} /usr/local/bin/dockless

# One binary answers to every name; the resource finds its three programs where Concourse looks for them, and
# pipelines that were written for kaniko its executor.
RUN <<EOF
set -eu
for face in docker docker-compose img buildctl buildctl-daemonless.sh build; do
    ln -s dockless "/usr/local/bin/$face"
done
mkdir -p /kaniko /opt/resource
ln -s /usr/local/bin/dockless /kaniko/executor
for program in check in out; do
    ln -s /usr/local/bin/dockless "/opt/resource/$program"
done
EOF

ENV DOCKER=img
WORKDIR /src
CMD ["dockless", "task"]
