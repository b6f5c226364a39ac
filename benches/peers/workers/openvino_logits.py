"""OpenVINO's logits of prompts: MODEL_DIRECTORY THREADS OUT. As `driver logits`, with what its CPU plugin does by default."""

import sys
from pathlib import Path

import jobs
import numpy
import openvino

model = openvino.Core().compile_model(Path(sys.argv[1]) / "openvino_model.xml", "CPU",
                                      {"INFERENCE_NUM_THREADS": int(sys.argv[2])})
request = model.create_infer_request()
inputs = {name for port in model.inputs for name in port.names}
out = open(sys.argv[3], "wb")


def work(job):
    positions = 0
    for prompt in job["prompts"]:
        request.reset_state()
        given = {"input_ids": numpy.array([prompt], dtype=numpy.int64),
                 "attention_mask": numpy.ones((1, len(prompt)), dtype=numpy.int64),
                 "position_ids": numpy.arange(len(prompt), dtype=numpy.int64)[None],
                 "beam_idx": numpy.zeros(1, dtype=numpy.int32)}
        request.infer({name: value for name, value in given.items() if name in inputs})
        rows = request.get_tensor("logits").data[0, job["first"]:]
        out.write(numpy.ascontiguousarray(rows, dtype=numpy.float32).tobytes())
        positions += len(rows)
    out.flush()
    return {"positions": positions, "vocabulary": rows.shape[1]}


jobs.answer(work)
