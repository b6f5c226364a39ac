"""OpenVINO GenAI with continuous batching: MODEL_DIRECTORY THREADS."""

import sys
import time

import jobs
import numpy
import openvino
import openvino_genai

scheduler = openvino_genai.SchedulerConfig()
scheduler.cache_size = 2  # GB
scheduler.max_num_seqs = 64
scheduler.max_num_batched_tokens = 1024
scheduler.enable_prefix_caching = False
pipeline = openvino_genai.ContinuousBatchingPipeline(
    sys.argv[1], scheduler, "CPU", {"INFERENCE_NUM_THREADS": int(sys.argv[2])})


def configuration(tokens):
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = tokens
    config.ignore_eos = True
    config.do_sample = False
    return config


def work(job):
    """Items `{"tokens", "generate", "at"}`; they are added when their time has come."""
    waiting = sorted(enumerate(job["items"]), key=lambda entry: entry[1]["at"])
    times = [dict(at=item["at"], first=0.0, end=0.0, prompt_tokens=len(item["tokens"]), generated_tokens=0)
             for item in job["items"]]
    running = {}
    begin = time.perf_counter()
    while waiting or running:
        now = time.perf_counter() - begin
        while waiting and waiting[0][1]["at"] <= now:
            index, item = waiting.pop(0)
            ids = openvino.Tensor(numpy.array([item["tokens"]], dtype=numpy.int64))
            running[index] = pipeline.add_request(index, ids, configuration(item["generate"]))
        if not running:
            time.sleep(max(0.0, waiting[0][1]["at"] - (time.perf_counter() - begin)))
            continue
        pipeline.step()
        now = time.perf_counter() - begin
        for index, handle in list(running.items()):
            if handle.can_read():
                for output in handle.read().values():
                    times[index]["generated_tokens"] += len(output.generated_ids)
                times[index]["first"] = times[index]["first"] or now
            if times[index]["generated_tokens"] >= job["items"][index]["generate"]:
                times[index]["end"] = now
                del running[index]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return {"seconds": max(item["end"] for item in times), "items": times}


jobs.answer(work)
