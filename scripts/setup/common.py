"""Places, messages and what else every part uses. Standard library only."""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
# On the same file system as everything that is made from it, so that a rename is atomic.
DOWNLOADS = TOOLS / "downloads"


class SetupError(Exception):
    """A sentence that says what failed and what to do about it."""


def say(message):
    """One line of progress, on stderr and at once."""
    print("setup: %s" % message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def lock():
    """Held by one set-up of this tree at a time; freed by the kernel when its holder dies."""
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "setup.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this tree to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command, what, **options):
    """Runs a program quietly; its last lines are in the error when it fails."""
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        tail = "\n".join("    " + line for line in done.stdout.strip().splitlines()[-8:])
        raise SetupError("%s failed:\n%s" % (what, tail))
    return done.stdout


def sha256(*paths):
    """Of the files' contents, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def same_stamp(path, value):
    """Whether the stamp file says that `value` was made."""
    try:
        return path.read_text().strip() == value
    except OSError:
        return False


def replace_directory(new, old):
    """Puts the directory `new` in the place of `old`, which may be there, a link or nothing."""
    if old.is_symlink():
        old.unlink()
    elif old.exists():
        away = TOOLS / ("old-" + old.name.lstrip("."))
        shutil.rmtree(away, ignore_errors=True)
        old.rename(away)
        new.rename(old)
        shutil.rmtree(away, ignore_errors=True)
        return
    new.rename(old)


def link_tool(name, target):
    """Makes `.tools/bin/NAME` a link to `target`, given absolute and written relative to be moved with the tree."""
    BIN.mkdir(parents=True, exist_ok=True)
    new = BIN / (".%s.new" % name)
    new.unlink(missing_ok=True)
    inside = target.is_relative_to(ROOT)
    new.symlink_to(Path("../..") / target.relative_to(ROOT) if inside else target)
    new.rename(BIN / name)
