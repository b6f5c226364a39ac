"""`make bench-quality`: what each precision costs in quality, beside other engines, on the same tokens.

The reference is the file that is served, computed in fp32 by the native engine. Everyone's logits are compared with its by
one program, at the same positions: those of the code in real prompts, without the words that all prompts begin with.
"""

import argparse
import datetime
import json
import os
import sys
import time

import contestants
import install
import stats
from contestants import WORKERS, Worker
from install import PYTHON, ROOT, PeerError
from models import Models
from peers import processor
from workload import LANGUAGE, functions

FOLDER = ROOT / "target" / "bench" / "logits"
FEWEST_POSITIONS, LONGEST_PROMPT = 2000, 400


def held_prompts(prompts, positions):
    """Prompts with at least so many positions after their common beginning, and where that ends."""
    made = prompts.ask({"codes": functions()[700:1100], "language": LANGUAGE})
    tokens = [p["tokens"] for p in made if 100 < len(p["tokens"]) <= LONGEST_PROMPT]
    first = next(i for i in range(min(map(len, tokens))) if len({t[i] for t in tokens}) > 1)
    held, total = [], 0
    for prompt in tokens:
        if total >= positions:
            return held, first
        held.append(prompt)
        total += len(prompt) - first
    raise PeerError("the standard library has too few functions for %d positions" % positions)


def rows(options, driver, models):
    """`(name, how it came about, command)` of everyone who is compared; the command's last argument is the output."""
    threads = options.threads

    def ours(precision, model, *flags):
        return lambda: [driver, "logits", "--model", model(), "--precision", precision, "--threads", threads, *flags, "--out"]

    def worker(script, model):
        return lambda: [PYTHON, WORKERS / script, model(), threads]

    def gguf():
        return ROOT / options.model

    return [
        ("transformers fp32", "the same weights; tells that the reference is one",
         worker("transformers_logits.py", models.fp32)),
        ("bf16", "libtorch on the CPU", ours("bf16", gguf, "--engine", "eager")),
        ("int8", "native engine, from the file", ours("int8", gguf)),
        ("int4", "native engine, the file's own blocks", ours("int4", gguf)),
        ("int4 requantized from fp32", "native engine, from the dequantized weights", ours("int4", models.fp32)),
        ("int4 requantized from bf16", "native engine, from the dequantized weights in bf16", ours("int4", models.bf16)),
        ("int8 of libtorch", "eager engine, _weight_int8pack_mm", ours("int8", gguf, "--engine", "eager")),
        ("int4 of libtorch", "eager engine, _weight_int4pack_mm", ours("int4", gguf, "--engine", "eager")),
        ("llama.cpp Q8_0", "llama-quantize --allow-requantize of the file",
         worker("llama_logits.py", lambda: models.llama("Q8_0"))),
        ("llama.cpp Q4_0", "llama-quantize --allow-requantize of the file",
         worker("llama_logits.py", lambda: models.llama("Q4_0"))),
        ("OpenVINO int8", "optimum-intel, int8 per channel", worker("openvino_logits.py", models.openvino)),
    ]


def verdicts(kl):
    """`(what, number, limit, met)`; met is `None` where one of the two was not measured."""
    pairs = [("int8", "llama.cpp Q8_0"), ("int4", "llama.cpp Q8_0"), ("int4 requantized from fp32", "llama.cpp Q4_0"),
             ("int4 requantized from bf16", "llama.cpp Q4_0")]
    return [("KL of %s, no more than %s" % pair, kl.get(pair[0]), kl.get(pair[1]),
             kl[pair[0]] <= kl[pair[1]] if pair[0] in kl and pair[1] in kl else None) for pair in pairs]


def write_logits(name, command, out, job):
    worker = Worker("logits of " + name, [*command, out])
    try:
        return worker.ask(job)
    finally:
        worker.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=int(os.environ.get("POSITIONS") or 2400),
                        help="positions to compare, at least %d (2400)" % FEWEST_POSITIONS)
    parser.add_argument("--only", default="", help="only rows whose names contain one of these, by commas")
    parser.add_argument("--model", default=os.environ.get("CODE_EXPLAINER_MODEL") or "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    if options.positions < FEWEST_POSITIONS:
        parser.error("--positions: at least %d, or the means say too little" % FEWEST_POSITIONS)
    wanted = [part for part in options.only.split(",") if part]

    _, driver = contestants.build()
    failures = [{"row": name, "error": problem} for name, problem in install.install().items()]
    models = Models(ROOT / options.model, options.threads)
    worker = Worker("prompts", [driver, "prompts", "--model", ROOT / options.model])
    prompts, first = held_prompts(worker, options.positions)
    worker.close()
    job = {"prompts": prompts, "first": first}

    FOLDER.mkdir(parents=True, exist_ok=True)
    reference, other = FOLDER / "reference", FOLDER / "other"
    began = time.monotonic()
    install.say("fp32, the reference: %d prompts" % len(prompts))
    shape = write_logits("fp32", [driver, "logits", "--model", ROOT / options.model, "--precision", "fp32", "--threads",
                                  options.threads, "--out"], reference, job)
    compare, results = Worker("compare", [PYTHON, WORKERS / "compare.py"]), {}
    try:
        for name, how, command in rows(options, driver, models):
            if wanted and not any(part in name for part in wanted):
                continue
            install.say("%3d s  %s" % (time.monotonic() - began, name))
            try:
                if write_logits(name, command(), other, job) != shape:
                    raise PeerError("%s gave logits of another shape" % name)
                results[name] = {"how": how, **compare.ask({"reference": str(reference), "other": str(other),
                                                            "vocabulary": shape["vocabulary"]})}
            except (PeerError, OSError) as error:
                failures.append({"row": name, "error": str(error)})
                install.say("FAILED: %s" % error)
    finally:
        compare.close()
        reference.unlink(missing_ok=True)
        other.unlink(missing_ok=True)

    kl = {name: result["kl"] for name, result in results.items()}
    checks = verdicts(kl)
    result = {"when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": processor(),
              "versions": install.versions(), "reference": "fp32, native engine", "positions": shape["positions"],
              "prompts": len(prompts), "first_position": first, "kl": kl,
              "top1": {name: result["top1"] for name, result in results.items()}, "rows": results,
              "targets": [dict(zip(("what", "number", "limit", "met"), check)) for check in checks], "failures": failures}
    path = ROOT / "target" / "bench" / "quality.json"
    path.with_suffix(".new").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".new").rename(path)

    print("%d positions of %d real prompts, against fp32" % (shape["positions"], len(prompts)))
    print(stats.table(["", "mean KL", "+-", "KL p99", "top-1"],
                      [[name, "%.6f" % r["kl"], "%.6f" % r["kl_standard_error"], "%.5f" % r["kl_p99"], "%.4f" % r["top1"]]
                       for name, r in results.items()]))
    print()
    print(stats.table(["target", "measured", "limit", ""],
                      [[what, number, limit, {True: "met", False: "MISSED", None: "not measured"}[met]]
                       for what, number, limit, met in checks]))
    for failure in failures:
        print("FAILED: %(row)s: %(error)s" % failure)
    print("\nall of it: %s" % path.relative_to(ROOT))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
