#!/usr/bin/env bash
# The linters: `quick` (those that compile nothing), `clippy`, or `all`.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

mapfile -t shell_files < <(find scripts tests .ci -name node_modules -prune -o -type f -print0 |
    xargs -0 grep -lE '^#!.*\bbash|^# shellcheck shell=bash' --)
mapfile -t yaml_files < <(find ./*.yaml charts -name '*.yaml' -not -path '*/templates/*')

quick() {
    check "rustfmt" cargo fmt --all --check
    check "shellcheck" shellcheck --external-sources --source-path=SCRIPTDIR "${shell_files[@]}"
    check "yamllint" yamllint --strict --config-file scripts/yamllint.yaml "${yaml_files[@]}"
    check "hadolint" hadolint Dockerfile
    check "buf lint" buf lint proto
    check "buf format" buf format --diff --exit-code proto
    check "benches: medians, ratios, verdicts" "${PYTHON:-python3}" -B -m unittest discover -s benches/peers
    check "cargo deny: bans, licenses, sources" cargo-deny --locked --workspace check bans licenses sources
    advisories
}

# Against a copy of https://github.com/RustSec/advisory-db that is at hand: in DENY_DB, a directory that holds such copies as
# cargo-deny makes them, or where it keeps its own. `cargo deny fetch db` makes or renews one where there is a network.
advisories() {
    local db=${DENY_DB:-${CARGO_HOME:-$HOME/.cargo}/advisory-dbs} copies config date
    mapfile -t copies < <(compgen -G "$db/*/crates")
    if ((!${#copies[@]})); then
        echo "skipped      cargo deny: advisories: there is no copy of their database in $db (cargo deny fetch db, or DENY_DB)"
        return
    fi
    date=$(git -C "${copies[0]}" log -1 --format=%cs)
    # Only a setting tells cargo-deny where the database is.
    config=$(mktemp)
    sed "s|^\[advisories\]$|&\ndb-path = \"$db\"|" deny.toml >"$config"
    check "cargo deny: advisories as of $date" \
        cargo-deny --locked --offline --workspace --config "$config" check advisories
    rm -f "$config"
}

clippy() {
    check "clippy" cargo clippy --release --locked --workspace --all-targets \
        --features code-explainer-fuzz/fuzz -- -D warnings
}

case ${1:-all} in
    quick) quick ;;
    clippy) clippy ;;
    all) quick && clippy ;;
    *) echo "usage: scripts/lint.sh [quick|clippy|all]" >&2 && exit 64 ;;
esac
verdict
