#!/usr/bin/env bash
# Builds the container image with whichever builder works here.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
image=${1:?usage: scripts/image.sh NAME:TAG}

if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    exec docker build --tag "$image" .
elif command -v podman >/dev/null; then
    exec podman build --tag "$image" .
elif command -v buildah >/dev/null; then
    exec buildah build --layers --tag "$image" .
fi
echo "error: no docker with a running daemon, podman or buildah here (apt-get install buildah)" >&2
exit 1
