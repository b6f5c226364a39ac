# shellcheck shell=bash
# For the scripts beside it: the root, the tools that `make setup` put in place, and how a list of checks is run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck disable=SC2034 # for those who source this
outer_path=$PATH
export PATH="$root/.tools/bin:$root/.venv/bin:$PATH"

failures=()
results=()

# check NAME COMMAND...: runs it, shows its output only when it fails, and goes on.
check() {
    local name=$1 log started=$SECONDS
    shift
    log=$(mktemp)
    if "$@" </dev/null >"$log" 2>&1; then
        results+=("ok      $((SECONDS - started)) s  $name")
    else
        failures+=("$name")
        results+=("FAILED  $((SECONDS - started)) s  $name")
        printf -- '--- %s failed: %s\n' "$name" "$*" >&2
        cat "$log" >&2
    fi
    printf '%s\n' "${results[-1]}"
    rm -f "$log"
}

# Fails when a check did, and names it.
verdict() {
    if ((${#failures[@]})); then
        printf 'checks: %d passed, %d failed: %s\n' "$((${#results[@]} - ${#failures[@]}))" "${#failures[@]}" \
            "$(printf '%s; ' "${failures[@]}")" >&2
        return 1
    fi
    printf 'checks: %d passed, 0 failed\n' "${#results[@]}"
}
