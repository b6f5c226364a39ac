"""The virtual environment `.venv`: pip for the downloads, and the Python packages of the tests."""

import importlib.util
import os
import shutil
import subprocess
import sys

from common import ROOT, VENV, VENV_PYTHON, SetupError, run, same_stamp, say, sha256

_PIP_FILE = ROOT / "scripts" / "setup" / "pip.txt"
PIP = next(line.split()[0] for line in _PIP_FILE.read_text().splitlines() if not line.startswith("#"))
REQUIREMENTS = [ROOT / "scripts" / "requirements.txt", ROOT / "tests" / "clients" / "python" / "requirements.txt"]
_PIP_STAMP = VENV / ".pip"
_PACKAGES_STAMP = VENV / ".packages"


def ensure():
    """Makes `.venv` with a pip of the wanted version, from the Python that runs this."""
    if same_stamp(_PIP_STAMP, PIP) and _runs():
        return
    say("making .venv from %s" % sys.executable)
    shutil.rmtree(VENV, ignore_errors=True)
    # A base interpreter may come without ensurepip (Debian's python3 does); its own pip can then fill the .venv.
    bundled = importlib.util.find_spec("ensurepip") is not None
    own_pip = importlib.util.find_spec("pip") is not None
    if importlib.util.find_spec("venv") is None or not (bundled or own_pip):
        raise SetupError("%s has no venv with pip. Install it (apt-get install python3-venv), or set PYTHON to a "
                         "Python that has it: make setup PYTHON=/path/to/python3" % sys.executable)
    run([sys.executable, "-m", "venv"] + ([] if bundled else ["--without-pip"]) + [VENV], "making .venv",
        env=environment())
    pip = [VENV_PYTHON, "-m", "pip"] if bundled else [sys.executable, "-m", "pip", "--python", VENV_PYTHON]
    install(pip, [_PIP_FILE], "pip (2 MB)")
    _PIP_STAMP.write_text(PIP + "\n")


def install(pip, files, what):
    """`pip install` of what the files require, each file of it known by its sha256 (`hashes.py` writes them); with the
    failure in words that help."""
    words = [word for path in files for word in ("-r", str(path))]
    try:
        run([*pip, "install", "--quiet", "--require-hashes", *words], "pip install", env=environment())
    except SetupError as error:
        raise SetupError("could not install %s: %s\nCheck the network, or point pip at an index of your own "
                         "(PIP_INDEX_URL) or at a folder of wheels (PIP_FIND_LINKS), and run `make setup` again"
                         % (what, error)) from None


def environment():
    """Without what would send the packages elsewhere."""
    dropped = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PYTHONHOME", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _runs():
    """False when the base interpreter of `.venv` has gone."""
    try:
        return subprocess.run([VENV_PYTHON, "-c", "import pip"], stdin=subprocess.DEVNULL,
                              capture_output=True).returncode == 0
    except OSError:
        return False


class Packages:
    """What the linters, the chart's checks and the Python client test import or run."""

    def ready(self):
        return VENV_PYTHON.exists() and same_stamp(_PACKAGES_STAMP, sha256(*REQUIREMENTS))

    def make(self):
        ensure()
        say("installing the Python packages of the tests into .venv (180 MB)")
        install([VENV_PYTHON, "-m", "pip"], REQUIREMENTS,
                "the packages of " + " and ".join(str(path.relative_to(ROOT)) for path in REQUIREMENTS))
        _PACKAGES_STAMP.write_text(sha256(*REQUIREMENTS) + "\n")
