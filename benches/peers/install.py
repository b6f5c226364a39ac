"""The other engines, in a virtual environment of their own, `.venv-peers`: 6 GB, most of it PyTorch with its CUDA libraries.

What is there stays. A part that cannot be installed is told, and does not keep the others from being measured.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-peers"
PYTHON = VENV / "bin" / "python"
LLAMA = VENV / "llama.cpp"
LLAMA_BIN = LLAMA / "build" / "bin"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Its source distribution carries llama.cpp whole, with its server and its benchmark.
LLAMA_CPP = "llama-cpp-python==0.3.36"
TOOLS = ("llama-batched-bench", "llama-quantize", "llama-server")


class PeerError(Exception):
    """Why a peer cannot be measured."""


def say(message):
    print("peers: %s" % message, file=sys.stderr, flush=True)


def install():
    """Installs what is missing, and gives for each part that could not be why not."""
    problems = {}
    for name, part in (("packages", _packages), ("llama.cpp", _llama)):
        if "packages" in problems:
            problems[name] = problems["packages"]
            continue
        try:
            part()
        except (PeerError, OSError) as error:
            say("%s cannot be installed: %s" % (name, error))
            problems[name] = str(error)
    return problems


def environment(**more):
    """That of the peers: without the limits that some machines set for older numerical libraries."""
    dropped = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    kept["PATH"] = "%s:%s" % (VENV / "bin", kept["PATH"])
    fixed = {"HF_HUB_OFFLINE": "1", "LLAMA_CPP_LIB_PATH": str(LLAMA_BIN), "RUST_BACKTRACE": "0"}
    return {**kept, **fixed, **more}


def run(command, what, **more):
    """Runs a program with its output in a log, whose end is in the error when it fails."""
    log = VENV / "install.log"
    with open(log, "a") as out:
        out.write("\n$ %s\n" % " ".join(map(str, command)))
        out.flush()
        code = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT, env=environment(**more)).returncode
    if code:
        tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-4:])
        raise PeerError("%s ended with %d: %s (all of it is in %s)" % (what, code, tail, log))


def _done(stamp, value):
    return stamp.is_file() and stamp.read_text() == value


def _packages():
    value = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if _done(VENV / ".packages", value):
        return
    say("installing OpenVINO GenAI, transformers and PyTorch into %s (3 GB to download)" % VENV.name)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True, stdin=subprocess.DEVNULL)
    run([PYTHON, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], "pip install")
    (VENV / ".packages").write_text(value)


def _llama():
    if _done(VENV / ".llama", LLAMA_CPP) and all((LLAMA_BIN / tool).exists() for tool in TOOLS):
        return
    say("compiling llama.cpp for this processor (5 to 10 minutes)")
    pip = [PYTHON, "-m", "pip"]
    sources = LLAMA / "sdist"
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    run([*pip, "download", "--quiet", "--no-deps", "--no-build-isolation", "--dest", sources, LLAMA_CPP], "pip download")
    archive, = sources.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(sources, filter="data")
    source, = sources.glob("*/vendor/llama.cpp")
    build = LLAMA / "build"
    run(["cmake", "-G", "Ninja", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
         "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_OPENSSL=OFF",
         "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"], "cmake")
    run(["ninja", "-C", build, *TOOLS], "compiling llama.cpp")
    # The Python package takes the library that was just compiled (LLAMA_CPP_LIB_PATH), so that there is one llama.cpp.
    run([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", archive], "pip install llama-cpp-python",
        CMAKE_ARGS="-DLLAMA_BUILD=OFF -DLLAVA_BUILD=OFF")
    (VENV / ".llama").write_text(LLAMA_CPP)


def versions():
    """Of what is measured, as installed."""
    script = ("import importlib.metadata as m, json\n"
              "names = ['openvino-genai', 'openvino', 'transformers', 'torch', 'llama-cpp-python', 'nncf']\n"
              "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return None\n"
              "found = {n: v(n) for n in names}\n"
              "try:\n import llama_cpp; found['llama.cpp features'] = llama_cpp.llama_print_system_info().decode().strip()\n"
              "except Exception as e: found['llama.cpp features'] = str(e)\n"
              "print(json.dumps(found))")
    done = subprocess.run([str(PYTHON), "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env=environment())
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-300:]}
