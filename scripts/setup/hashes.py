"""Rewrites the hashes in the requirements of the tests: `.venv/bin/python scripts/setup/hashes.py`.

Run it after a version was changed by hand. It asks pip which file it would take of each package, on each platform and Python
that `make setup` runs on, and writes the sha256 of all of them beside the package; `pip install --require-hashes` then takes
those files and no others.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "scripts" / "setup" / "pip.txt", ROOT / "scripts" / "setup" / "node.txt",
         ROOT / "scripts" / "requirements.txt", ROOT / "tests" / "clients" / "python" / "requirements.txt"]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
# The tags of machines with a new, a usual and an old glibc, the most specific first: there can be a file for each.
PLATFORMS = [["manylinux_2_%d_%s" % (glibc, machine) for glibc in range(newest, 4, -1)]
             + ["%s_%s" % (old, machine) for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")] + ["any"]
             for machine in ("x86_64", "aarch64") for newest in (41, 28, 17)]


def requirements(text):
    """The lines of a file: a requirement without its hashes, or a comment."""
    joined = text.replace(" \\\n", " ")
    for line in joined.splitlines():
        yield line if line.startswith("#") else line.split(" --hash=")[0].rstrip()


def holds(requirement, python):
    """Whether a requirement's marker, which is about the version of Python at most, is for this one."""
    marker = requirement.partition(";")[2].replace("python_version", "").strip().split(" ")
    if len(marker) < 2:
        return True
    own, other = (tuple(map(int, version.strip('"').split("."))) for version in (python, marker[1]))
    return {"<": own < other, ">=": own >= other}[marker[0]]


def taken(requirement, python, platforms):
    """The file that pip would take: its address and its sha256. None where there is none."""
    version = python.replace(".", "")
    tags = ["--python-version", python, "--implementation", "cp", "--abi", "cp" + version, "--abi", "abi3", "--abi", "none"]
    for platform in platforms:
        tags += ["--platform", platform]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
               "--only-binary=:all:", "--target", str(ROOT / ".tools" / "none"), "--report", "-", *tags,
               requirement.partition(";")[0].strip()]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        return None
    report = json.loads(done.stdout[done.stdout.index("{"):])
    file = report["install"][0]["download_info"]
    return file["url"], file["archive_info"]["hashes"]["sha256"]


def with_hashes(requirement):
    hashes = set()
    for platforms in PLATFORMS:
        for python in PYTHONS:
            file = taken(requirement, python, platforms) if holds(requirement, python) else None
            if file:
                hashes.add(file[1])
                if file[0].endswith("-py3-none-any.whl"):  # the one for all
                    return lines_of(requirement, hashes)
    if not hashes:
        sys.exit("error: the package index has no file for " + requirement)
    return lines_of(requirement, hashes)


def lines_of(requirement, hashes):
    return " \\\n    ".join([requirement, *("--hash=sha256:" + one for one in sorted(hashes))])


def main():
    for path in FILES:
        lines = []
        for line in requirements(path.read_text()):
            plain = line == "" or line.startswith("#")
            lines.append(line if plain else with_hashes(line))
        path.write_text("\n".join(lines) + "\n")
        print("%s: %d packages" % (path.relative_to(ROOT), sum("--hash" in line for line in lines)))


if __name__ == "__main__":
    main()
