#!/usr/bin/env python3
"""Count the lines of files."""
import argparse
import sys
from pathlib import Path


def count(path: Path) -> int:
    with path.open("rb") as f:
        return sum(1 for _ in f)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    args = parser.parse_args(argv)
    total = 0
    for path in args.paths:
        try:
            n = count(path)
        except OSError as e:
            print(f"{path}: {e}", file=sys.stderr)
            continue
        total += n
        print(n, path)
    print(total, "total")
    return 0


if __name__ == "__main__":
    sys.exit(main())
