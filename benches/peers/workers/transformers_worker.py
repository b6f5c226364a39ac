"""transformers' `generate` in fp32: MODEL_DIRECTORY THREADS. It has no queue: what waits when it is free goes in one batch."""

import sys
import time

import jobs
import torch
import transformers

torch.set_num_threads(int(sys.argv[2]))
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
MOST = 32


def generate(items):
    longest = max(len(item["tokens"]) for item in items)
    padding = [longest - len(item["tokens"]) for item in items]
    ids = torch.tensor([[0] * pad + item["tokens"] for pad, item in zip(padding, items)])
    mask = torch.tensor([[0] * pad + [1] * len(item["tokens"]) for pad, item in zip(padding, items)])
    tokens = max(item["generate"] for item in items)
    model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                   pad_token_id=0)


def work(job):
    """Items `{"tokens", "generate", "at"}`. There is no stream: the first token is there when the last one is."""
    waiting = sorted(range(len(job["items"])), key=lambda index: job["items"][index]["at"])
    times = [dict(at=item["at"], prompt_tokens=len(item["tokens"]), generated_tokens=item["generate"])
             for item in job["items"]]
    begin = time.perf_counter()
    while waiting:
        now = time.perf_counter() - begin
        batch = [index for index in waiting if job["items"][index]["at"] <= now][:MOST]
        if not batch:
            time.sleep(max(0.0, job["items"][waiting[0]]["at"] - now))
            continue
        waiting = [index for index in waiting if index not in batch]
        with torch.inference_mode():
            generate([job["items"][index] for index in batch])
        now = time.perf_counter() - begin
        for index in batch:
            times[index].update(first=now, end=now)
    return {"seconds": max(item["end"] for item in times), "items": times}


jobs.answer(work)
