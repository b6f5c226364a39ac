#!/usr/bin/env bash
# Fetches what the build, the demo and the tests need. See scripts/setup/__main__.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    echo "error: there is no $python. Install Python 3.10 or newer (apt-get install python3 python3-venv), or set" \
        "PYTHON to one: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi
exec "$python" -B "$root/scripts/setup" "$@"
