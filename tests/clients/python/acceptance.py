"""Does what a client in another language does, and checks that the server keeps to its contract.

    python acceptance.py 127.0.0.1:50051 ../../../proto

Sixteen snippets go over one bidirectional stream; one of them is cancelled after its first delta. Exits with 1 and
says what is wrong if anything is.
"""

import queue
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from explain import load
from snippets import SNIPPETS

SERVICES = (
    "codeexplainer.v1.AdminService",
    "codeexplainer.v1.ExplainService",
    "codeexplainer.v1.ModelService",
    "grpc.health.v1.Health",
)
CANCELLED = "lru_cache.py"
TOKENS = 24
DEADLINE_S = 600


def check(condition, message):
    if not condition:
        raise SystemExit(f"acceptance: FAILED: {message}")


def check_services(channel):
    listed = ProtoReflectionDescriptorDatabase(channel).get_services()
    missing = sorted(set(SERVICES) - set(listed))
    check(not missing, f"reflection does not list {missing}, only {sorted(listed)}")
    print(f"reflection lists {', '.join(sorted(listed))}")

    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *SERVICES[:3]):
        status = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S).status
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        check(name == "SERVING", f"the health of {service or 'the server'!r} is {name}")
    print("health is SERVING for the server and each service")


def converse(stub, messages, most_tokens):
    """Sends all snippets, cancels one at its first delta, half-closes; gives the events in their order."""
    requests = queue.SimpleQueue()
    for name, (language, code) in SNIPPETS.items():
        item = messages.ExplainRequest(
            id=name,
            code=code,
            language=language,
            max_new_tokens=TOKENS,
            include_full_text=True,
        )
        if name == CANCELLED:
            # Long enough that it cannot be over before the cancellation arrives.
            item.max_new_tokens = most_tokens
            item.ignore_eos = True
        requests.put(messages.ExplainStreamRequest(explain=item))

    events = []
    half_closed = False
    call = stub.ExplainStream(iter(requests.get, None), timeout=DEADLINE_S)
    for event in call:
        events.append(event)
        if not half_closed and event.id == CANCELLED and event.WhichOneof("event") == "delta":
            requests.put(messages.ExplainStreamRequest(cancel=messages.Cancel(id=CANCELLED)))
            requests.put(None)
            half_closed = True
    check(half_closed, f"{CANCELLED} has had no delta")
    check(call.code() is grpc.StatusCode.OK, f"the stream ended with {call.code()}: {call.details()}")
    return events


def check_events(events):
    by_id = {}
    for event in events:
        by_id.setdefault(event.id, []).append(event)
    check(by_id.keys() == SNIPPETS.keys(), f"events came for {sorted(by_id)}")

    done, errors = [], []
    for name, own in by_id.items():
        kinds = [event.WhichOneof("event") for event in own]
        deltas = [event.delta for event in own if event.WhichOneof("event") == "delta"]
        check(kinds == ["accepted"] + ["delta"] * len(deltas) + [kinds[-1]], f"{name}: events are {kinds}")
        check([delta.sequence for delta in deltas] == list(range(len(deltas))), f"{name}: a delta is missing")
        last = own[-1]
        if kinds[-1] == "done":
            done.append(name)
            text = "".join(delta.text for delta in deltas)
            check(text == last.done.full_text, f"{name}: the deltas are not the full text")
            tokens = last.done.usage.generated_tokens
            check(0 < tokens <= TOKENS, f"{name}: {tokens} tokens were generated, {TOKENS} asked for")
            check(last.done.usage.prompt_tokens > 0, f"{name}: the prompt has no tokens")
            check(last.done.receipt.model and last.done.receipt.largest_batch > 0, f"{name}: an empty receipt")
        else:
            check(kinds[-1] == "error", f"{name}: the last event is {kinds[-1]}")
            errors.append((name, last.error.code))
    check(len(done) == len(SNIPPETS) - 1, f"{len(done)} items are done, but for {errors}")
    check(errors == [(CANCELLED, grpc.StatusCode.CANCELLED.value[0])], f"the errors are {errors}")


def interleaved(events):
    """Ids with a delta between two deltas of another id."""
    order = [event.id for event in events if event.WhichOneof("event") == "delta"]
    first = {name: order.index(name) for name in order}
    last = {name: place for place, name in enumerate(order)}
    return {
        name
        for place, name in enumerate(order)
        if any(first[other] < place < last[other] for other in first if other != name)
    }


def main(address, proto_dir):
    modules = load(proto_dir)
    messages = modules["explain_pb2"]
    with grpc.insecure_channel(address.removeprefix("http://")) as channel:
        check_services(channel)

        models = modules["model_pb2_grpc"].ModelServiceStub(channel)
        model = models.GetModel(modules["model_pb2"].GetModelRequest(), timeout=DEADLINE_S)
        print(f"{model.name} ({model.architecture}, {model.parameters:,} parameters) on {model.device}")
        most = min(512, model.limits.max_new_tokens or 512, (model.context_length or 2048) // 2)

        stub = modules["explain_pb2_grpc"].ExplainServiceStub(channel)
        events = converse(stub, messages, most)

    check_events(events)
    mixed = interleaved(events)
    check(len(mixed) >= 2, f"only {sorted(mixed)} came interleaved")
    batch = max(event.done.receipt.largest_batch for event in events if event.WhichOneof("event") == "done")
    print(f"{len(SNIPPETS)} snippets on one stream: {len(SNIPPETS) - 1} done, {CANCELLED} cancelled")
    print(f"{len(events)} events, the deltas of {len(mixed)} ids interleaved, up to {batch} in one step")
    print("acceptance: passed")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        check(False, f"{error.code().name}: {error.details()}")
