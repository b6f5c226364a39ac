#!/usr/bin/env bash
# Compiles and links the server with CUDA graphs against the CUDA build of libtorch, which it fetches into .cuda (6 GB on
# disk), and runs the engine's tests with it. Needs no GPU; where there is one, the tests use it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
packages=(torch==2.13.0 nvidia-cuda-crt==13.0.88)
venv=$root/.cuda/venv
stamp="${packages[*]}"

if [[ $(cat .cuda/packages 2>/dev/null) != "$stamp" ]]; then
    echo "installing ${packages[*]} into .cuda (3 GB to download, 5 GB on disk)"
    rm -f .cuda/packages
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/pip" install --disable-pip-version-check --no-cache-dir --quiet "${packages[@]}"
    echo "$stamp" >.cuda/packages
fi
LIBTORCH=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/torch
export LIBTORCH CARGO_TARGET_DIR=$root/.cuda/target
server=$CARGO_TARGET_DIR/release/code-explainer-server

compile() {
    PATH=$outer_path cargo build --release --locked --features cuda --bin code-explainer-server
}

# Not with grep -q, which would end the pipe before its writer has.
links_cuda() {
    readelf --dynamic --wide "$server" | grep 'NEEDED.*libtorch_cuda\.so'
}

has_the_shim() {
    nm --demangle "$server" | grep ' T ce_capture_begin$'
    nm --demangle "$server" | grep ' U at::cuda::CUDAGraph::capture_begin'
}

finds_its_libraries() {
    ldd "$server" >"$root/.cuda/ldd"
    ! grep 'not found' "$root/.cuda/ldd"
}

names_the_missing_device() {
    local said
    said=$("$server" serve --device cuda:99 --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 2>&1) && return 1
    grep 'device cuda:99 is not available' <<<"$said"
}

# The tests that have libtorch in them; those of CUDA graphs are among them with this feature alone.
run_tests() {
    PATH=$outer_path cargo test --release --locked --features code-explainer-engine-torch/cuda -p code-explainer-engine-torch &&
        PATH=$outer_path cargo test --release --locked --features cuda --test behaviour -- torch
}

echo "building with the feature cuda in .cuda/target (15 minutes the first time)"
check "the server compiles and links with --features cuda" compile
if ((${#failures[@]} == 0)); then
    check "it is linked with libtorch_cuda" links_cuda
    check "it has the shim, and takes CUDAGraph from libtorch" has_the_shim
    check "the loader finds all of its libraries" finds_its_libraries
    check "it starts, and says that a device is not there" names_the_missing_device
    check "the tests of the libtorch engine pass with it" run_tests
fi
if command -v nvidia-smi >/dev/null && nvidia-smi --list-gpus >/dev/null 2>&1; then
    echo "this machine has a GPU: the tests ran on it, with CUDA graphs captured and replayed"
else
    echo "this machine has no GPU: nothing ran on CUDA, and no graph was captured or replayed"
fi
verdict
