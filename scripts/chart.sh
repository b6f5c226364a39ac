#!/usr/bin/env bash
# Lints the Helm chart, renders it with several sets of values and checks what comes out.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
chart=charts/code-explainer

check "helm lint" helm lint --strict "$chart"
for values in "$chart"/ci/*.yaml; do
    check "helm lint with $(basename "$values")" helm lint --strict "$chart" --values "$values"
done
verdict
exec python tests/chart/check.py
