#!/bin/bash
set -euo pipefail

for dir in "$@"; do
    if [ -d "$dir" ]; then
        tar czf "$(basename "$dir").tar.gz" "$dir"
    fi
done
echo "done"
