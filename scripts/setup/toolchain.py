"""What must be on the machine already: cargo with clippy and rustfmt, a C and a C++ compiler."""

import os
import re
import shutil
import subprocess

from common import SetupError

MINIMUM_RUST = (1, 95)


def check(linters):
    """Says in one go everything that is missing; clippy and rustfmt count where `linters` is true."""
    missing = []
    if not shutil.which("cargo"):
        missing.append("cargo: install Rust %d.%d or newer from https://rustup.rs" % MINIMUM_RUST)
    else:
        missing += _rust(linters)
    for variable, default in (("CC", "cc"), ("CXX", "c++")):
        compiler = os.environ.get(variable, default).split()[0]
        if not shutil.which(compiler):
            missing.append("%s: apt-get install gcc g++, or set %s" % (compiler, variable))
    if missing:
        raise SetupError("this machine lacks\n" + "\n".join("    " + line for line in missing))


def _rust(linters):
    out = subprocess.run(["cargo", "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = re.match(r"cargo (\d+)\.(\d+)", out.stdout)
    if not found:
        yield "a working cargo: `cargo --version` says " + (out.stderr.strip() or "nothing")
    elif tuple(map(int, found.groups())) < MINIMUM_RUST:
        yield "Rust %d.%d or newer (this is %s): rustup update" % (*MINIMUM_RUST, out.stdout.strip())
    for tool, component in (("cargo-clippy", "clippy"), ("rustfmt", "rustfmt")):
        if linters and not shutil.which(tool):
            yield "%s: rustup component add %s" % (tool, component)
