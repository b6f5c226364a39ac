#!/usr/bin/env bash
# Everything that must hold, quick checks first. Prints totals and fails when anything did.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
started=$SECONDS

scripts/lint.sh quick
scripts/chart.sh
scripts/lint.sh clippy

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# With the PATH of the caller, so that this is what a plain `cargo test` does.
PATH=$outer_path cargo test --release --locked --workspace --no-fail-fast </dev/null 2>&1 | tee "$log" || status=$?

# One "test result:" line for each test program.
totals=$(awk '/^test result:/ { programs++; passed += $4; failed += $6; ignored += $8 }
    END { printf "%d %d %d %d", programs, passed, failed, ignored }' "$log")
read -r programs passed failed ignored <<<"$totals"
printf '\ncargo test: %d passed, %d failed, %d ignored in %d test programs; make test took %d s\n' \
    "$passed" "$failed" "$ignored" "$programs" "$((SECONDS - started))"
if ((status != 0)); then
    echo "FAILED: cargo test ended with $status" >&2
    exit 1
fi
if ((passed == 0)); then
    echo "FAILED: no test ran" >&2
    exit 1
fi
echo "all checks and tests passed"
