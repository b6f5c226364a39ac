"""Jobs in, results out: the workers' side, as in driver/jobs.rs."""

import json
import os
import sys

# What libraries print goes to stderr; the results have this to themselves.
_out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def answer(work):
    """Says that the worker is ready, and answers jobs until its input ends."""
    _out.write('{"ready": true}\n')
    for line in sys.stdin:
        _out.write(json.dumps(work(json.loads(line))) + "\n")
