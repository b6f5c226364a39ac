"""Explains source files over one bidirectional stream, with grpcio and the project's proto files alone.

    pip install grpcio grpcio-tools
    python explain.py 127.0.0.1:50051 ../../../proto FILE...

The answers come interleaved. One file is printed as it comes; of several, each is printed when it is complete.
"""

import importlib
import importlib.resources
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc


def load(proto_dir):
    """Generates the stubs into a directory that goes away, and gives the modules of messages and of services."""
    proto_dir = pathlib.Path(proto_dir)
    files = sorted(str(path) for path in (proto_dir / "codeexplainer").rglob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as out:
        options = [f"-I{proto_dir}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if not files or protoc.main(["protoc", *options, *files]) != 0:
            raise SystemExit(f"{proto_dir}: these proto files cannot be compiled")
        sys.path.insert(0, out)
        try:
            package = "codeexplainer.v1"
            names = ("explain_pb2", "explain_pb2_grpc", "model_pb2", "model_pb2_grpc")
            return {name: importlib.import_module(f"{package}.{name}") for name in names}
        finally:
            sys.path.remove(out)


def main(address, proto_dir, *paths):
    modules = load(proto_dir)
    messages, services = modules["explain_pb2"], modules["explain_pb2_grpc"]

    def requests():
        for path in paths:
            code = pathlib.Path(path).read_text(encoding="utf-8")
            item = messages.ExplainRequest(id=path, code=code, max_new_tokens=96)
            yield messages.ExplainStreamRequest(explain=item)
        # The end of the requests half-closes the stream; what is in flight is answered all the same.

    texts, failed = {path: "" for path in paths}, False
    with grpc.insecure_channel(address) as channel:
        for event in services.ExplainServiceStub(channel).ExplainStream(requests()):
            kind = event.WhichOneof("event")
            if kind == "delta":
                texts[event.id] += event.delta.text
                if len(paths) == 1:
                    print(event.delta.text, end="", flush=True)
            elif kind == "done":
                tokens = event.done.usage.generated_tokens
                text = "" if len(paths) == 1 else f"==> {event.id} <==\n{texts[event.id]}"
                print(f"{text}\n[{tokens} tokens, {event.done.receipt.model}]")
            elif kind == "error":
                failed = True
                print(f"{event.id}: {event.error.message}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    sys.exit(main(*sys.argv[1:]))
