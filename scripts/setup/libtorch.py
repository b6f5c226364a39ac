"""libtorch for the CPU in `.libtorch/`, out of the wheel of torch.

The wheel on the package index is the CUDA build. Its CPU half is whole without the CUDA half, but for two small
libraries that it names, so those come too. `libtorch_cuda.so` stays out: torch-sys would link it if it saw it.
"""

import os
import platform
import shutil
import zipfile
from pathlib import Path

from common import ROOT, TOOLS, SetupError, replace_directory, same_stamp, say
from wheels import Wheel

VERSION = "2.13.0"
PLACE = ROOT / ".libtorch"
_TORCH = Wheel("torch", VERSION, "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7", 527)
_CUDART = Wheel("nvidia-cuda-runtime", "13.5.37", "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d", 3)
_CUPTI = Wheel("nvidia-cuda-cupti", "13.5.25", "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650", 13)
_LIBRARIES = [(_TORCH, ("libtorch_cpu.so", "libc10.so", "libgomp.so.1")), (_CUDART, ("libcudart.so.13",)),
              (_CUPTI, ("libcupti.so.13",))]


def ready():
    """True when the user has a libtorch, or ours is there. A wrong one of the user's is an error at once."""
    own = os.environ.get("LIBTORCH")
    if own and Path(own).resolve() != PLACE.resolve():
        if not any((Path(own) / "lib").glob("libtorch_cpu.*")):
            raise SetupError("LIBTORCH is %s, which has no lib/libtorch_cpu.so. Point it at libtorch %s, or unset it to "
                             "have one fetched" % (own, VERSION))
        return True
    if os.environ.get("LIBTORCH_USE_PYTORCH"):
        return True
    libraries = [name for _, names in _LIBRARIES for name in names] + ["libtorch.so"]
    return same_stamp(PLACE / "build-version", VERSION) and all((PLACE / "lib" / name).exists() for name in libraries)


def make():
    """Fetches the wheels and takes out what is needed; 540 MB to download, 440 MB on disk."""
    if platform.machine() != "x86_64":
        raise SetupError("there is no ready libtorch for %s here. Set LIBTORCH to a libtorch %s of your own"
                         % (platform.machine(), VERSION))
    say("libtorch %s for the CPU: 540 MB to download, 440 MB on disk" % VERSION)
    new = TOOLS / "new-libtorch"
    shutil.rmtree(new, ignore_errors=True)
    (new / "lib").mkdir(parents=True)
    for wheel, names in _LIBRARIES:
        with zipfile.ZipFile(wheel.fetch()) as archive:
            _take(archive, names, new)
    # A linker script: -ltorch finds the CPU half and nothing else.
    (new / "lib" / "libtorch.so").write_text("INPUT(libtorch_cpu.so)\n")
    (new / "build-version").write_text(VERSION + "\n")
    replace_directory(new, PLACE)
    for wheel, _ in _LIBRARIES:
        wheel.discard()


def _take(archive, libraries, new):
    """Takes the named libraries, wherever they lie in the wheel, and torch's headers."""
    missing = set(libraries)
    for entry in archive.infolist():
        path = Path(entry.filename)
        if path.name in missing and not entry.is_dir():
            missing.discard(path.name)
            _write(archive, entry, new / "lib" / path.name)
        elif path.parts[:2] == ("torch", "include") and not entry.is_dir():
            _write(archive, entry, new / Path(*path.parts[1:]))
    if missing:
        raise SetupError("%s lacks %s" % (archive.filename, ", ".join(sorted(missing))))


def _write(archive, entry, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
