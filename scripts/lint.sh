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
}

clippy() {
    check "clippy" cargo clippy --release --locked --workspace --all-targets -- -D warnings
}

case ${1:-all} in
    quick) quick ;;
    clippy) clippy ;;
    all) quick && clippy ;;
    *) echo "usage: scripts/lint.sh [quick|clippy|all]" >&2 && exit 64 ;;
esac
verdict
