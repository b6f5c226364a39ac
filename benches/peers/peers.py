"""`make bench-peers`: Code Explainer beside llama.cpp, OpenVINO GenAI and transformers, in one run.

All take turns: in each round every engine does every workload, in an order that moves on from round to round, and a ratio
is taken between numbers of the same round. The tables go to stdout, every number to target/bench/peers.json.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time

import contestants
import install
import stats
from contestants import Engine, LlamaCpp, PythonWorker, Served, Worker
from install import ROOT, PeerError
from models import Models
from workload import Workload

PROMPT_TOKENS, GENERATE, PREFILL_BATCH = 128, 48, 16
NOTES = """\
Workload A: B prompts of 128 tokens at once, 48 generated tokens each (end of sequence ignored), greedy; all engines get
the same tokens, which are those that our server makes of real functions. tok/s are generated tokens over all of the time,
prompts included. prefill: prompt tokens a second, 16 prompts of 128 tokens, one generated token each. realistic: snippets
of 60 to 600 tokens that arrive over a few seconds, 32 to 96 generated tokens each, more than any engine keeps up with.
Caches: our answer cache is off everywhere, and no two items are alike, so nothing is joined. In A and prefill no engine
keeps prefixes (ours: --prefix-cache off). In realistic each server has its own default: ours and llama-server keep
prefixes, OpenVINO GenAI's continuous batching does not. Our server guesses tokens where it pays (--speculation auto), the
peers do not by default; the rows "no speculation" are without. llama.cpp is measured by its llama-batched-bench in A and
prefill, which neither samples nor serves, and by llama-server in realistic; OpenVINO GenAI and transformers in their own
process, without a server. All engines have %d threads."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = os.environ.get
    parser.add_argument("--rounds", type=int, default=int(number("ROUNDS") or 3), help="rounds at most (3)")
    parser.add_argument("--minutes", type=float, default=float(number("MINUTES") or 15),
                        help="begin no round that would not be done by then; the first one is always done (15)")
    parser.add_argument("--quick", action="store_true", default=bool(number("QUICK")),
                        help="one round, concurrency 1 and 8, a small realistic workload")
    parser.add_argument("--concurrency", default="1,8,16,32", help="of workload A")
    parser.add_argument("--only", default="", help="measure only the engines whose names contain one of these, by commas")
    parser.add_argument("--model", default=number("CODE_EXPLAINER_MODEL") or "models/SmolLM2-135M-Instruct.Q4_1.gguf",
                        help="a GGUF file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", default="target/bench/peers.json")
    options = parser.parse_args()
    options.concurrency = [1, 8] if options.quick else sorted(map(int, options.concurrency.split(",")))
    if options.quick:
        options.rounds = 1
    return options


def line_up(options, driver, server, models):
    """Everyone who takes part, as `(contestant, workloads)`."""
    threads, model = options.threads, options.model
    all_ = [(LlamaCpp("llama.cpp Q8_0", lambda: models.llama("Q8_0"), threads), ("A", "prefill", "realistic")),
            (LlamaCpp("llama.cpp Q4_0", lambda: models.llama("Q4_0"), threads), ("A", "prefill", "realistic")),
            (PythonWorker("OpenVINO int8", "openvino_worker.py", models.openvino, threads), ("A", "prefill", "realistic")),
            (PythonWorker("transformers fp32", "transformers_worker.py", models.fp32, threads),
             ("A", "prefill", "realistic"))]
    for precision in ("int8", "int4", "fp32"):
        all_.append((Engine(stats.engine(precision), driver, model, precision, threads), ("A", "prefill")))
        for speculation in (True, False):
            if precision == "fp32" and not speculation:
                continue
            flags = ["--model", model, "--precision", precision, "--threads", threads,
                     "--speculation", "auto" if speculation else "off"]
            name = stats.grpc(precision, speculation)
            alike = Served(name, driver, server, flags + ["--prefix-cache", "off", "--kv-cache-tokens", 8192])
            all_.append((alike, ("A", "prefill") if speculation else ("A",)))
            workloads = ("realistic",) if precision == "fp32" else ("realistic", "one by one")
            all_.append((Served(name, driver, server, flags), workloads))
    wanted = [part for part in options.only.split(",") if part]
    return [(c, w) for c, w in all_ if not wanted or any(part in c.name for part in wanted)]


class Run:
    """Samples, failures, and who is up."""

    def __init__(self, options, workload, line_up, problems):
        self.options, self.workload, self.line_up = options, workload, line_up
        self.samples, self.failures, self.up = [], [], set()
        for name, problem in problems.items():
            self.failures.append({"contestant": name, "doing": "installing", "error": problem})
        self.begin = time.monotonic()

    def stages(self, round_):
        """`(workload, concurrency, items, window)` of a round."""
        quick, exact = self.options.quick, self.workload.exact
        stages = [("A", c, exact(c), c) for c in self.options.concurrency]
        stages.append(("prefill", PREFILL_BATCH, [dict(item, generate=1) for item in exact(PREFILL_BATCH)], PREFILL_BATCH))
        stages.append(("realistic", 0, self.workload.realistic(8 if quick else 24, 1 if quick else 3, round_), 256))
        stages.append(("realistic", 1, self.workload.realistic(4 if quick else 10, 0, 1000 + round_), 1))
        return stages

    def round(self, round_):
        for stage in self.stages(round_):
            workload, concurrency, items, window = stage
            name = "one by one" if window == 1 and workload == "realistic" else workload
            taking_part = [c for c, workloads in self.line_up if name in workloads]
            turn = round_ % len(taking_part) if taking_part else 0
            for contestant in taking_part[turn:] + taking_part[:turn]:
                if contestant.failures < 2:  # started again once, then given up
                    self.measure(round_, contestant, workload, concurrency, items, window)

    def measure(self, round_, contestant, workload, concurrency, items, window):
        try:
            if contestant not in self.up:
                contestant.start()
                self.up.add(contestant)
                if "llama.cpp" not in contestant.name:  # whose benchmark warms up by itself
                    warm_up = [dict(item, generate=8) for item in self.workload.exact(2)]
                    contestant.run(warm_up, 2)
            times = contestant.run(items, window)
        except (PeerError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            self.failures.append({"contestant": contestant.name, "doing": "%s, %d" % (workload, concurrency),
                                  "round": round_, "error": str(error)})
            install.say("FAILED: %s: %s" % (contestant.name, error))
            contestant.failures += 1
            self.up.discard(contestant)
            contestant.close()
            return
        values = measured(workload, items, times)
        self.samples.append({"round": round_, "workload": workload, "concurrency": concurrency,
                             "contestant": contestant.name, "values": values})
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        install.say("%2d:%02d  round %d of %d  %-9s %-10s  %-34s %7.1f tok/s"
                    % (minutes, seconds, round_ + 1, self.options.rounds, workload,
                       "B=%d" % concurrency if concurrency else "", contestant.name, values["tokens_per_second"]))

    def close(self):
        for contestant in self.up:
            contestant.close()
        self.up.clear()


def measured(workload, items, times):
    """What a sample says of its times."""
    prompt = sum(len(item["tokens"]) for item in items)
    generated = sum(item["generate"] for item in items)
    made = times["generated"] if times["items"] is None else sum(item["generated_tokens"] for item in times["items"])
    if made != generated:
        raise PeerError("generated %d tokens instead of %d" % (made, generated))
    tokens = prompt if workload == "prefill" else generated
    values = {"tokens_per_second": tokens / times["seconds"], "seconds": times["seconds"], "prompt_tokens": prompt,
              "generated_tokens": generated}
    if times["items"] is not None and workload == "realistic":
        for name in ("first", "end"):
            after = [item[name] - item["at"] for item in times["items"]]
            values[name + "_p50"], values[name + "_p95"] = stats.percentile(after, 0.5), stats.percentile(after, 0.95)
        values["cached_prompt_tokens"] = sum(item.get("cached_tokens", 0) for item in times["items"])
    return values


def processor():
    with open("/proc/cpuinfo") as info:
        fields = dict(line.split(":", 1) for line in info.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx"))]
    return {"name": fields.get("model name", platform.processor()), "cores": len(os.sched_getaffinity(0)), "flags": flags}


def write(run, options, versions, rounds, load):
    """The JSON, whole or not at all."""
    ratios = stats.summary(run.samples, options.concurrency)
    checks = stats.verdicts(ratios, options.concurrency)
    result = {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "machine": processor(),
        "load_average_at_start": load, "versions": versions, "threads": options.threads, "rounds": rounds,
        "prompt_tokens": PROMPT_TOKENS, "generated_tokens": GENERATE, "notes": NOTES % options.threads,
        **ratios,
        "targets": [dict(zip(("what", "number", "target", "met"), check)) for check in checks],
        "failures": run.failures, "rows": stats.medians(run.samples), "samples": run.samples}
    path = ROOT / options.out
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result, indent=1) + "\n")
    new.rename(path)
    return checks


def main():
    options = arguments()
    server, driver = contestants.build()
    problems = install.install()
    versions = install.versions()
    models = Models(ROOT / options.model, options.threads)
    prompts = Worker("prompts", [driver, "prompts", "--model", ROOT / options.model])
    workload = Workload(prompts, PROMPT_TOKENS, GENERATE)
    prompts.close()
    load = os.getloadavg()[0]
    if load > 0.5:
        install.say("the machine is not idle (load %.1f): ratios hold better than the numbers, and neither well" % load)
    run = Run(options, workload, line_up(options, driver, server, models), problems)
    rounds = 0
    try:
        for round_ in range(options.rounds):
            began = time.monotonic()
            run.round(round_)
            rounds = round_ + 1
            write(run, options, versions, rounds, load)
            now = time.monotonic()
            if now - run.begin + (now - began) > options.minutes * 60:
                break
    except KeyboardInterrupt:
        install.say("interrupted; what has been measured is written")
    finally:
        run.close()
    checks = write(run, options, versions, rounds, load)
    show(run, options, rounds, checks)
    return 1 if run.failures else 0


def show(run, options, rounds, checks):
    print("%s, %d cores; medians of %d round%s" % (processor()["name"], processor()["cores"], rounds,
                                                    "" if rounds == 1 else "s"))
    print(stats.report(run.samples, options.concurrency))
    print()
    print(stats.table(["target", "measured", "at least", ""],
                      [[what, number, target, {True: "met", False: "MISSED", None: "not measured"}[met]]
                       for what, number, target, met in checks]))
    print("\n" + NOTES % options.threads)
    for failure in run.failures:
        print("FAILED: %(contestant)s, %(doing)s: %(error)s" % failure)
    print("\nevery row and sample: %s" % options.out)


if __name__ == "__main__":
    sys.exit(main())
