"""Fetches what the build, the demo and the tests need: `scripts/setup.sh [run|tests|all]`.

    run    libtorch and the models: enough to build, run and try the server
    tests  the tools and packages that `make test` uses
    all    both (the default)

Every part is put together beside its place and renamed into it, so a cut leaves either the whole part or none of it,
and the next call takes up where the last one stopped. A call that finds everything in place does nothing.
"""

import sys

if sys.version_info < (3, 10):  # before anything here is parsed by an older Python
    sys.exit("error: Python 3.10 or newer is needed, this is %d.%d (%s). Set PYTHON to a newer one: make setup "
             "PYTHON=/path/to/python3" % (sys.version_info[0], sys.version_info[1], sys.executable))

import common  # noqa: E402
import embedding  # noqa: E402
import libtorch  # noqa: E402
import model  # noqa: E402
import tools  # noqa: E402
import toolchain  # noqa: E402
import venv_python  # noqa: E402

RUN = [libtorch, model, embedding]
TESTS = [venv_python.Packages(), tools.Curl(), tools.RedisServer(), tools.Envoy(), tools.Node(), tools.NodeClient(),
         tools.Helm()]
PARTS = {"run": RUN, "tests": TESTS, "all": RUN + TESTS}


def main(arguments):
    name = arguments[0] if arguments else "all"
    if len(arguments) > 1 or name not in PARTS:
        raise common.SetupError("usage: scripts/setup.sh [%s]" % "|".join(PARTS))
    if all(part.ready() for part in PARTS[name]):
        return
    toolchain.check(linters=name != "run")
    with common.lock():
        for part in PARTS[name]:
            if not part.ready():  # another call may have made it while this one waited for the lock
                part.make()
    common.say("everything is in place")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except common.SetupError as error:
        sys.exit("error: %s" % error)
    except KeyboardInterrupt:
        sys.exit("error: interrupted; the next `make setup` takes up from here")
