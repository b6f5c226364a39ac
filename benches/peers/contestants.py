"""Engines that are measured, each behind the same call: items in, times out."""

import itertools
import json
import queue
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from install import LLAMA_BIN, PYTHON, ROOT, PeerError, environment

WORKERS = Path(__file__).with_name("workers")
PATIENCE = 300
_numbers = itertools.count(1)


class Log:
    """What a process said, in a file that is left for whoever wants to know."""

    def __init__(self, name):
        self.name = name
        folder = ROOT / "target" / "bench" / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        # A number for each, since engines of one name may run beside each other.
        self._path = folder / ("%s-%d.log" % (re.sub(r"[^A-Za-z0-9.]+", "-", name), next(_numbers)))

    def start(self, command, pipes=False, **more):
        """Starts the process; with pipes, its standard output is not for the log."""
        with open(self._path, "w") as log:
            return subprocess.Popen([str(part) for part in command], cwd=ROOT, env=environment(**more), text=True,
                                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                                    stdout=subprocess.PIPE if pipes else log, stderr=log)

    def text(self):
        return re.sub(r"\x1b\[[0-9;]*m", "", self._path.read_text(errors="replace"))

    def end(self):
        """The last lines, on one."""
        return " | ".join(line.strip() for line in self.text().strip().splitlines()[-3:])


class Worker:
    """A process that answers a JSON line with a JSON line."""

    def __init__(self, name, command):
        self.name = name
        self._log = Log(name + ", worker")
        self._process = self._log.start(command, pipes=True)
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._answer()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _answer(self):
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            self.close()
            raise PeerError("%s said nothing for %d s" % (self.name, PATIENCE)) from None
        if line is None:
            code = self._process.wait()
            raise PeerError("%s ended with %d: %s" % (self.name, code, self._log.end()))
        return json.loads(line)

    def ask(self, job):
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has ended, and its answer says how
        return self._answer()

    def close(self):
        self._process.kill()
        self._process.wait()


class Contestant:
    """An engine under a name. `start` makes it ready; `A` is for items that are all there at once."""

    def __init__(self, name):
        self.name = name
        self.failures = 0
        self._worker = self._server = None

    def close(self):
        """Ends what was started of it."""
        if self._worker:
            self._worker.close()
        if self._server:
            self._server.kill()
            self._server.wait()
        self._worker = self._server = None


class Engine(Contestant):
    """Our engine alone."""

    def __init__(self, name, driver, model, precision, threads):
        super().__init__(name)
        self._command = [driver, "engine", "--model", model, "--precision", precision, "--threads", threads]

    def start(self):
        self._worker = Worker(self.name, self._command)

    def run(self, items, _window):
        times = self._worker.ask({"prompts": [item["tokens"] for item in items], "generate": items[0]["generate"]})
        return {"seconds": times["seconds"], "items": None, "generated": times["generated_tokens"]}


class Served(Contestant):
    """Our server on a free port of this machine, and a client of it over gRPC."""

    def __init__(self, name, driver, server, flags):
        super().__init__(name)
        self._driver, self._command = driver, [
            server, "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--cache-size", "0", *flags]

    def start(self):
        self._log = Log(self.name)
        self._server = self._log.start(self._command, CODE_EXPLAINER_LOG="info", CODE_EXPLAINER_LOG_FORMAT="text")
        address = self._wait(lambda: self._address("grpc"))
        http = self._wait(lambda: self._address("http"))
        self._wait(lambda: _is_there("http://%s/readyz" % http))
        self._worker = Worker(self.name, [self._driver, "grpc", "--address", address])

    def _address(self, listener):
        found = re.search(listener + r' listening.*?address="?([^" \n]+)', self._log.text())
        return found and found.group(1)

    def _wait(self, condition):
        return _wait(condition, self._server, self._log)

    def run(self, items, window):
        job = {"items": [{key: item[key] for key in ("code", "language", "generate", "at")} for item in items],
               "window": window}
        times = self._worker.ask(job)
        for item, made in zip(items, times["items"]):
            if made["cache"] != "computed":
                raise PeerError("%s answered from the cache: %s" % (self.name, made["cache"]))
            if made["prompt_tokens"] != len(item["tokens"]):
                raise PeerError("%s made a prompt of %d tokens, the others got %d"
                                % (self.name, made["prompt_tokens"], len(item["tokens"])))
        return times


class PythonWorker(Contestant):
    """OpenVINO GenAI and transformers."""

    def __init__(self, name, script, model, threads):
        super().__init__(name)
        self._script, self._model, self._threads = script, model, threads

    def start(self):
        self._worker = Worker(self.name, [PYTHON, WORKERS / self._script, self._model(), self._threads])

    def run(self, items, _window):
        return self._worker.ask({"items": [{key: item[key] for key in ("tokens", "generate", "at")} for item in items]})


class LlamaCpp(Contestant):
    """llama.cpp: its own batched-bench for items that are there at once (it neither samples nor serves, which is to its
    advantage), and its server for items that arrive over time."""

    def __init__(self, name, model, threads):
        super().__init__(name)
        self._model, self._threads = model, threads

    def start(self):
        self._path = str(self._model())
        if not all((LLAMA_BIN / tool).exists() for tool in ("llama-batched-bench", "llama-server")):
            raise PeerError("llama.cpp is not there")

    def run(self, items, _window):
        if any(item["at"] for item in items):
            return self._serve(items)
        return self._bench(len(items), len(items[0]["tokens"]), items[0]["generate"])

    def _bench(self, count, prompt, generate):
        command = [LLAMA_BIN / "llama-batched-bench", "-m", self._path, "-c", count * (prompt + generate + 16), "-b", 2048,
                   "-ub", 512, "-npp", prompt, "-ntg", generate, "-npl", count, "-t", self._threads, "-tb", self._threads,
                   "--output-format", "jsonl"]
        done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=PATIENCE, env=environment())
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith('{"n_kv_max"')]
        if done.returncode or len(lines) != 1:
            raise PeerError("llama-batched-bench ended with %d: %s" % (done.returncode, done.stderr[-300:]))
        times = json.loads(lines[0])
        # A prompt gives the first token of its answer; the benchmark has a step for that one too.
        return {"seconds": times["t"] if generate > 1 else times["t_pp"], "items": None, "generated": count * generate}

    def _serve(self, items):
        if not self._server:
            self._port = _free_port()
            command = [LLAMA_BIN / "llama-server", "-m", self._path, "--host", "127.0.0.1", "--port", self._port, "-np", 32,
                       "-c", 32 * 800, "-b", 2048, "-ub", 512, "-t", self._threads, "-tb", self._threads]
            log = Log(self.name)
            self._server = log.start(command)
            _wait(lambda: _is_there("http://127.0.0.1:%d/health" % self._port), self._server, log)
        begin = time.perf_counter()
        with ThreadPoolExecutor(len(items)) as pool:
            times = list(pool.map(lambda item: self._complete(item, begin), items))
        return {"seconds": max(item["end"] for item in times), "items": times}

    def _complete(self, item, begin):
        time.sleep(max(0.0, item["at"] - (time.perf_counter() - begin)))
        body = {"prompt": item["tokens"], "n_predict": item["generate"], "ignore_eos": True, "temperature": 0,
                "stream": True}
        request = urllib.request.Request("http://127.0.0.1:%d/completion" % self._port, json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        times = {"at": item["at"], "first": 0.0, "end": 0.0, "prompt_tokens": len(item["tokens"]), "generated_tokens": 0}
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                times["first"] = times["first"] or time.perf_counter() - begin
                if b'"stop":true' in line:
                    times["generated_tokens"] = json.loads(line[6:])["tokens_predicted"]
        times["end"] = time.perf_counter() - begin
        return times


def _is_there(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait(condition, process, log):
    """Polls until the condition holds; a process that ends, or takes minutes, is an error with its last words."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if value := condition():
            return value
        if process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    raise PeerError("%s did not come up: %s" % (log.name, log.end()))


def build():
    """Compiles the server and the driver; gives their paths."""
    command = ["cargo", "build", "--release", "--locked", "--bin", "code-explainer-server", "--bench", "peers",
               "--message-format", "json-render-diagnostics"]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("cargo build failed")
    found = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable"):
            found[message["target"]["name"]] = message["executable"]
    return found["code-explainer-server"], found["peers"]
