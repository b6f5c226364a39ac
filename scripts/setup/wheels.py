"""Downloads wheels so that a cut costs little: what has arrived is kept and the rest is asked for.

pip finds the file (so its index, proxy and certificate settings count) and this fetches it. Where that does not work,
because the index wants credentials for instance, pip downloads the wheel itself.
"""

import json
import os
import shutil
import ssl
import sys
import time
import urllib.request
from dataclasses import dataclass

import venv_python
from common import DOWNLOADS, ROOT, VENV_PYTHON, SetupError, run, say, sha256

# Fixed tags: the library inside is wanted, whichever Python asks.
_TAGS = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=none",
         "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_25_x86_64", "--platform=manylinux_2_17_x86_64",
         "--platform=manylinux2014_x86_64", "--platform=any"]


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index, known by its contents."""

    name: str
    version: str
    sha256: str
    megabytes: int

    def fetch(self):
        """The wheel's path. It stays until `discard`, so that a cut in what follows does not fetch it again."""
        folder = DOWNLOADS / self.name
        whole = self._given(folder)
        if whole:
            return whole
        folder.mkdir(parents=True, exist_ok=True)
        venv_python.ensure()
        say("downloading %s %s (%d MB)" % (self.name, self.version, self.megabytes))
        problems = []
        for attempt in (self._by_range, self._by_pip):
            try:
                attempt(folder)
                whole = self._given(folder)
                if whole:
                    return whole
                problems.append("no wheel came")
            except (SetupError, OSError, ValueError, LookupError) as error:
                problems.append(str(error))
        raise SetupError("could not download %s %s:\n    %s\nCheck the network (https_proxy, PIP_INDEX_URL), or put the "
                         "file %s-%s-*.whl into %s by hand, and run `make setup` again"
                         % (self.name, self.version, "\n    ".join(problems), self.name.replace("-", "_"), self.version,
                            folder.relative_to(ROOT)))

    def discard(self):
        """Frees the space of the wheel once its contents are in place."""
        shutil.rmtree(DOWNLOADS / self.name, ignore_errors=True)

    def _given(self, folder):
        """The wheel that lies in `folder`, if its contents are right."""
        for path in folder.glob("*.whl"):
            if sha256(path) == self.sha256:
                return path
            say("%s is not the file it should be (sha256); dropping it" % path.relative_to(ROOT))
            path.unlink()
        return None

    def _pip(self, *arguments):
        return run([VENV_PYTHON, "-m", "pip", *arguments, "--no-deps", *_TAGS, "%s==%s" % (self.name, self.version)],
                   "pip " + arguments[0], env=venv_python.environment())

    def _by_range(self, folder):
        report = self._pip("install", "--quiet", "--dry-run", "--ignore-installed", "--target", str(folder / "none"),
                           "--report", "-")
        url = json.loads(report[report.index("{"):])["install"][0]["download_info"]["url"]
        part = folder / "part"
        for attempt in range(5):
            try:
                _append(url, part)
                break
            except OSError as error:
                if attempt == 4:
                    raise
                say("the download was cut (%s); taking it up again" % error)
                time.sleep(2**attempt)
        name = url.split("#")[0].split("?")[0].rsplit("/", 1)[-1]
        part.rename(folder / name)

    def _by_pip(self, folder):
        self._pip("download", "--quiet", "--dest", str(folder))


def _append(url, part):
    """Asks for the bytes that `part` does not have yet."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": "bytes=%d-" % have} if have else {})
    context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    try:
        answer = urllib.request.urlopen(request, timeout=60, context=context)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is missing
            raise
        return
    with answer:
        if have and answer.status != 206:
            have = 0  # the server sends all of it
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with open(part, "ab" if have else "wb") as file:
            _copy(answer, file, have, total)


def _copy(source, file, have, total):
    """Copies with a line of progress: on a terminal at each percent, in a log at each tenth."""
    live = sys.stderr.isatty()
    step, shown = (1 if live else 10), have * 100 // total if total else 0
    while chunk := source.read(1 << 20):
        file.write(chunk)
        have += len(chunk)
        if total and total > 50_000_000 and have * 100 // total >= shown + step:
            shown = have * 100 // total
            print("%s  %3d %% of %d MB%s" % ("\r" if live else "", shown, total // 1000000, "" if live else "\n"), end="",
                  file=sys.stderr, flush=True)
    if live and shown:
        print(file=sys.stderr)
    if total and have < total:
        raise OSError("the connection closed at %d of %d bytes" % (have, total))
