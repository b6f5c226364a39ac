#!/usr/bin/env bash
# The chaos test of bad and good clients, for SECONDS. Fails when anything leaks or the memory grows.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
seconds=${1:-600}
if ! [[ $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "error: SOAK_SECONDS is '$seconds': give a whole number, one or more" >&2
    exit 64
fi
PATH=$outer_path CODE_EXPLAINER_SOAK_SECONDS=$seconds cargo test --release --locked --test behaviour -- \
    --exact chaos::good_clients_notice_nothing_of_bad_ones_and_nothing_leaks --nocapture
