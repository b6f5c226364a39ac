#!/usr/bin/env bash
# Fuzzes the readers of what comes from outside, for SECONDS each: with cargo-fuzz where it is installed (coverage
# guided, needs a nightly toolchain), otherwise with the random mutations of the behaviour tests.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
seconds=${1:-60}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "error: SECONDS is '$seconds': give a whole number, one or more" >&2
    exit 64
fi

if [[ -d fuzz ]] && cargo +nightly fuzz --version >/dev/null 2>&1; then
    while read -r target; do
        echo "fuzzing $target for $seconds s (coverage guided)"
        cargo +nightly fuzz run --features link "$target" -- -max_total_time="$seconds"
    done < <(cargo +nightly fuzz list)
else
    echo "cargo-fuzz with a nightly toolchain is not installed: fuzzing by random mutations for $seconds s"
    PATH=$outer_path CODE_EXPLAINER_FUZZ_SECONDS=$seconds cargo test --release --locked --test behaviour -- fuzz_ --nocapture
fi
