"""llama.cpp's logits of prompts: GGUF THREADS OUT. As `driver logits`, with the KV cache in fp16 that llama.cpp has by default."""

import sys

import jobs
import llama_cpp
import numpy

llama = llama_cpp.Llama(sys.argv[1], n_ctx=2048, n_batch=512, logits_all=True, n_threads=int(sys.argv[2]),
                        n_threads_batch=int(sys.argv[2]), verbose=False)
out = open(sys.argv[3], "wb")


def work(job):
    positions = 0
    for prompt in job["prompts"]:
        llama.reset()
        llama.eval(prompt)
        rows = llama.scores[job["first"]:len(prompt)]
        out.write(numpy.ascontiguousarray(rows, dtype=numpy.float32).tobytes())
        positions += len(rows)
    out.flush()
    return {"positions": positions, "vocabulary": llama.n_vocab()}


jobs.answer(work)
