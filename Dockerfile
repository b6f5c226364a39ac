# The server and the client for the CPU, with the default model. `make image` builds it.
#
#   docker run --rm -p 50051:50051 -p 9464:9464 code-explainer:dev

# What the image is made of and from. Tags move: for a build that can be made again, or trusted, name images by contents, such
# as --build-arg BUILDER=rust:1.95-bookworm@sha256:... (`docker buildx imagetools inspect rust:1.95-bookworm` shows it).
ARG BUILDER=rust:1.95-bookworm
ARG RUNTIME=debian:bookworm-slim

# hadolint ignore=DL3006
FROM ${BUILDER} AS builder
# Debian keeps one version of a package in a release: pinning it would only break the build at the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# First what changes least: libtorch and the model stay in their layer.
COPY scripts/setup.sh scripts/
COPY scripts/setup scripts/setup
RUN scripts/setup.sh run
COPY . .
RUN cargo build --release --locked --workspace

# hadolint ignore=DL3006
FROM ${RUNTIME}
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 code-explainer \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin code-explainer
WORKDIR /opt/code-explainer
# The binaries look for libtorch in ../lib.
COPY --from=builder /src/.libtorch/lib/libtorch_cpu.so /src/.libtorch/lib/libc10.so /src/.libtorch/lib/libgomp.so.1 \
    /src/.libtorch/lib/libcudart.so.13 /src/.libtorch/lib/libcupti.so.13 lib/
COPY --from=builder /src/models models
COPY --from=builder /src/target/release/code-explainer-server /src/target/release/code-explainer bin/
# An image whose server does not find its libraries is not built.
RUN ["bin/code-explainer-server", "--version"]

USER 10001:10001
# libtorch's OpenMP threads would spin between two operators and take the cores of those who work; it must be told before
# the program starts.
ENV PATH=/opt/code-explainer/bin:$PATH \
    OMP_WAIT_POLICY=PASSIVE \
    CODE_EXPLAINER_LISTEN=0.0.0.0:50051 \
    CODE_EXPLAINER_HTTP_LISTEN=0.0.0.0:9464 \
    CODE_EXPLAINER_MODEL=/opt/code-explainer/models/SmolLM2-135M-Instruct.Q4_1.gguf \
    CODE_EXPLAINER_EMBEDDING_MODEL=/opt/code-explainer/models/all-MiniLM-L6-v2
EXPOSE 50051 9464
ENTRYPOINT ["code-explainer-server"]
CMD ["serve"]
