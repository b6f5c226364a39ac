"""transformers' logits of prompts in fp32: MODEL_DIRECTORY THREADS OUT. As `driver logits`; it tells whether our fp32 is one."""

import sys

import jobs
import torch
import transformers

torch.set_num_threads(int(sys.argv[2]))
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
out = open(sys.argv[3], "wb")


def work(job):
    positions = 0
    for prompt in job["prompts"]:
        with torch.inference_mode():
            rows = model(torch.tensor([prompt])).logits[0, job["first"]:].contiguous()
        out.write(rows.numpy().tobytes())
        positions += len(rows)
    out.flush()
    return {"positions": positions, "vocabulary": rows.shape[1]}


jobs.answer(work)
