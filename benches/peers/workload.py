"""What the engines are asked: functions of Python's standard library, in an order that is the same in every run."""

import ast
import functools
import random
import sysconfig
from pathlib import Path

LANGUAGE = "python"
MODULES = ("argparse ast asyncio/base_events asyncio/streams bdb bisect calendar cmd codecs collections/__init__ configparser "
           "contextlib copy csv dataclasses datetime decimal difflib dis doctest email/message enum filecmp fileinput fnmatch "
           "fractions ftplib functools genericpath getopt getpass gettext glob gzip heapq hmac html/parser http/client "
           "http/cookiejar http/server imaplib inspect ipaddress json/decoder json/encoder linecache locale "
           "logging/__init__ logging/handlers mailbox mimetypes netrc ntpath nturl2path numbers operator optparse os pathlib "
           "pdb pickle pickletools platform plistlib poplib posixpath pprint profile pstats pyclbr pydoc queue quopri random "
           "rlcompleter runpy sched selectors shelve shlex shutil signal smtplib socket socketserver ssl stat statistics "
           "string stringprep subprocess symtable tabnanny tarfile tempfile textwrap threading timeit token tokenize "
           "trace traceback tracemalloc types typing unittest/case unittest/mock urllib/parse urllib/request uuid warnings "
           "wave weakref webbrowser xml/dom/minidom xmlrpc/client zipapp zipfile").split()
# The prompt around a snippet, about: system message, instruction and fence.
FRAME = 40


@functools.cache
def functions():
    """Sources of functions and methods, shuffled."""
    library, found = Path(sysconfig.get_path("stdlib")), []
    for module in MODULES:
        path = library / (module + ".py")
        if not path.is_file():
            continue
        source = path.read_text(encoding="utf-8", errors="replace")
        lines = source.splitlines(keepends=True)
        for node in ast.parse(source).body:
            inner = node.body if isinstance(node, ast.ClassDef) else [node]
            for part in inner:
                if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and part.end_lineno - part.lineno > 3:
                    found.append("".join(lines[part.lineno - 1:part.end_lineno]))
    random.Random(1).shuffle(found)
    return list(dict.fromkeys(found))


class Workload:
    """Prompts as the server makes them; `prompts` is a worker of the driver."""

    def __init__(self, prompts, prompt_tokens, generate):
        self.generate = generate
        # Twice as much code as it takes, so that nearly all can be cut.
        long = [code for code in functions() if len(code) > 5 * prompt_tokens]
        self._exact = prompts.ask({"codes": long[:900], "language": LANGUAGE, "exactly": prompt_tokens})
        self._real = [prompt for prompt in prompts.ask({"codes": functions()[:700], "language": LANGUAGE})
                      if 60 <= len(prompt["tokens"]) - FRAME <= 600]
        self._next = 0

    def exact(self, count):
        """Workload A: prompts that are there at once, all of one length; no prompt comes twice before all have come."""
        picked = [self._exact[(self._next + i) % len(self._exact)] for i in range(count)]
        self._next += count
        return [dict(code=p["code"], tokens=p["tokens"], language=LANGUAGE, generate=self.generate, at=0.0) for p in picked]

    def realistic(self, count, seconds, round_):
        """Snippets of 60 to 600 tokens that arrive over so many seconds, with answers of 32 to 96 tokens."""
        chance = random.Random(100 + round_)
        picked = [self._real[(round_ * count + i) % len(self._real)] for i in range(count)]
        at, items = 0.0, []
        for prompt in picked:
            items.append(dict(code=prompt["code"], tokens=prompt["tokens"], language=LANGUAGE,
                              generate=chance.randint(32, 96), at=at))
            at += chance.expovariate(count / seconds) if seconds else 0.0
        return items
