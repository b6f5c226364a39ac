"""Asks the server by the public Triton client, as it comes from the package index: 2.73 or newer.

    python triton.py 127.0.0.1:50051

Eight snippets go over one stream, and a bad one between them. Exits with 1 and says what is wrong if anything is.
"""

import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from snippets import SNIPPETS

MODEL = "code-explainer"
TOKENS = 16
DEADLINE_S = 600


def check(condition, message):
    if not condition:
        raise SystemExit(f"triton: FAILED: {message}")


def tensor(code):
    value = triton.InferInput("code", [1], "BYTES")
    value.set_data_from_numpy(np.array([code.encode()], dtype=np.object_))
    return [value]


def text(result):
    return result.as_numpy("text")[0].decode()


def parameters(result):
    return {name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in result.get_response().parameters.items()}


def metadata(client):
    check(client.is_server_live() and client.is_server_ready(), "not live and ready")
    check(client.is_model_ready(MODEL) and not client.is_model_ready("another"), "the wrong models are ready")
    server = client.get_server_metadata()
    check(server.name == "code-explainer-server" and server.version, f"metadata {server}")
    model = client.get_model_metadata(MODEL)
    for tensors, name in (model.inputs, "code"), (model.outputs, "text"):
        shape = [(t.name, t.datatype, list(t.shape)) for t in tensors]
        check(shape == [(name, "BYTES", [1])], f"metadata {model}")
    print(f"{server.name} {server.version} serves {model.name}")


def infer(client, code, compression=None):
    result = client.infer(MODEL, tensor(code), request_id="single", parameters={"max_new_tokens": TOKENS},
                          client_timeout=DEADLINE_S, compression_algorithm=compression)
    told = parameters(result)
    check(result.get_response().id == "single" and told["triton_final_response"], f"response {told}")
    check(0 < told["generated_tokens"] <= TOKENS and told["finish_reason"], f"response {told}")
    check(text(result), "no answer")
    return text(result)


def refused(client):
    cases = [
        ("another", tensor("x"), {}, "model_name"),
        (MODEL, tensor(" "), {}, "code"),
        (MODEL, tensor("x") + tensor("y"), {}, "inputs"),
        (MODEL, tensor("x"), {"max_new_tokens": -1}, "max_new_tokens"),
        (MODEL, tensor("x"), {"max_new_tokens": "many"}, "max_new_tokens"),
        (MODEL, tensor("x"), {"telepathy": True}, "telepathy"),
        (MODEL, tensor("x"), {"cache_mode": "sometimes"}, "cache_mode"),
        (MODEL, tensor("x"), {"retrieval": "{}"}, "retrieval"),
    ]
    number = triton.InferInput("code", [1], "INT32")
    number.set_data_from_numpy(np.array([1], dtype=np.int32))
    cases.append((MODEL, [number], {}, "inputs"))
    two = triton.InferInput("code", [2], "BYTES")
    two.set_data_from_numpy(np.array([b"x", b"y"], dtype=np.object_))
    cases.append((MODEL, [two], {}, "inputs"))
    for model, inputs, options, field in cases:
        try:
            client.infer(model, inputs, parameters=options)
        except InferenceServerException as error:
            check("INVALID_ARGUMENT" in str(error.status()) and field in error.message(), f"{field}: {error}")
        else:
            check(False, f"{field} was not refused")
    print(f"{len(cases)} bad requests were refused")


def options(client, code):
    wanted = {"seed": 7, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "max_new_tokens": TOKENS, "on_deadline": "keep",
              "cache_mode": "bypass", "replay": "paced", "include_prompt": True, "include_full_text": True, "stop": '["@@"]'}
    result = client.infer(MODEL, tensor(code), priority=3, timeout=DEADLINE_S * 1_000_000, parameters=wanted)
    told = parameters(result)
    check(told["seed"] == 7 and told["full_text"] == text(result) and code in told["prompt"], f"response {told}")
    check(told["cache"] == "computed", f"response {told}")
    try:
        client.infer(MODEL, tensor(code), timeout=1, parameters={"cache_mode": "bypass"})
    except InferenceServerException as error:
        check("DEADLINE_EXCEEDED" in str(error.status()), f"{error}")
    else:
        check(False, "a microsecond was enough")
    print("options are those of the native protocol")


def stream(client, snippets, empty_final):
    events = queue.Queue()
    client.start_stream(callback=lambda result, error: events.put((result, error)))
    for name, code in snippets.items():
        client.async_stream_infer(MODEL, tensor(code), request_id=name, parameters={"max_new_tokens": TOKENS},
                                  enable_empty_final_response=empty_final)
    client.async_stream_infer(MODEL, tensor("x"), request_id="bad", parameters={"top_p": 7})
    answers, finals, errors = dict.fromkeys(snippets, ""), {}, []
    while len(finals) < len(snippets) or not errors:
        result, error = events.get(timeout=DEADLINE_S)
        if error is not None:
            errors.append(error.message())
            continue
        response, told = result.get_response(), parameters(result)
        check(response.id not in finals, f"{response.id}: more after the last")
        if told["triton_final_response"]:
            finals[response.id] = told
            check(bool(response.outputs) != empty_final, f"{response.id}: outputs {response.outputs}")
        if response.outputs:
            answers[response.id] += text(result)
    client.stop_stream()
    check(len(errors) == 1 and "bad" in errors[0] and "top_p" in errors[0], f"errors {errors}")
    check(all(answers.values()) and set(finals) == set(snippets), f"answers {answers}")
    print(f"{len(finals)} snippets were explained on one stream, a bad one was refused")
    return answers


def main():
    client = triton.InferenceServerClient(sys.argv[1])
    snippets = {name: code for name, (_, code) in list(SNIPPETS.items())[:8]}
    check(len(snippets) == 8, f"{len(snippets)} snippets")
    metadata(client)
    refused(client)
    answers = stream(client, snippets, empty_final=True)
    check(stream(client, snippets, empty_final=False) == answers, "the answers differ with empty_final")
    name, code = next(iter(snippets.items()))
    check(infer(client, code) == answers[name], "the answer in one piece is another than in many")
    check(infer(client, code, "gzip") == answers[name], "the answer to a compressed request is another")
    options(client, code)
    client.close()
    print("triton: all is well")


if __name__ == "__main__":
    main()
