"""Samples to medians, ratios and a table. Pure: what it says is tested without running any engine."""

import math
import statistics

INT8_PEERS = ["llama.cpp Q8_0", "OpenVINO int8"]
INT4_PEERS = ["llama.cpp Q4_0"]
ALL_PEERS = INT8_PEERS + INT4_PEERS + ["transformers fp32"]


def grpc(precision, speculation=True):
    """The name of our server in a precision, as it is by default or with speculation off."""
    return "ours %s, gRPC%s" % (precision, "" if speculation else ", no speculation")


def engine(precision):
    """The name of our engine alone in a precision."""
    return "ours %s, engine alone" % precision


def percentile(values, share):
    """The value below which `share` (0 to 1) of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def medians(samples):
    """One row for each workload, concurrency and contestant, in the order of their first samples: every number is the
    median over the rounds. A sample has the three keys and its measurements in `values`."""
    groups = {}
    for sample in samples:
        key = (sample["workload"], sample["concurrency"], sample["contestant"])
        groups.setdefault(key, []).append(sample["values"])
    rows = []
    for (workload, concurrency, contestant), values in groups.items():
        row = {"workload": workload, "concurrency": concurrency, "contestant": contestant, "rounds": len(values)}
        for name in values[0]:
            row[name] = statistics.median(value[name] for value in values)
        rates = [value["tokens_per_second"] for value in values]
        row["lowest"], row["highest"] = min(rates), max(rates)
        rows.append(row)
    return rows


def paired(samples, workload, concurrency, ours, others, value="tokens_per_second"):
    """The median over the rounds of our number over the best of the others' in the same round; `None` without a round
    that has ours and one of theirs. Within a round the machine is the most alike."""
    rounds = {}
    for sample in samples:
        if sample["workload"] == workload and sample["concurrency"] == concurrency and value in sample["values"]:
            rounds.setdefault(sample["round"], {})[sample["contestant"]] = sample["values"][value]
    ratios = []
    for by_name in rounds.values():
        theirs = [by_name[name] for name in others if name in by_name]
        if ours in by_name and theirs and max(theirs) > 0:
            ratios.append(by_name[ours] / max(theirs))
    return round(statistics.median(ratios), 3) if ratios else None


def summary(samples, concurrencies):
    """Every ratio that the targets speak of. A ratio without its parts is null, never left out."""
    def by_concurrency(ours, others):
        return {str(c): paired(samples, "A", c, ours, others) for c in concurrencies}

    def prefill(ours, others):
        return paired(samples, "prefill", 16, ours, others)

    workloads = [("A", c) for c in concurrencies] + [("realistic", 0), ("realistic", 1)]
    speculation = {}
    for precision in ("int8", "int4"):
        on, off = grpc(precision), [grpc(precision, speculation=False)]
        speculation[precision] = {
            "%s, concurrency %s" % (workload, concurrency or "open"): paired(samples, workload, concurrency, on, off)
            for workload, concurrency in workloads}
    return {
        "ratio_vs_best_peer": by_concurrency(grpc("int8"), INT8_PEERS),
        "ratio_vs_best_peer_int4": by_concurrency(grpc("int4"), INT4_PEERS),
        "ratio_vs_best_peer_no_speculation": by_concurrency(grpc("int8", False), INT8_PEERS),
        "ratio_vs_best_peer_int4_no_speculation": by_concurrency(grpc("int4", False), INT4_PEERS),
        "ratio_vs_transformers_fp32": by_concurrency(grpc("fp32"), ["transformers fp32"]),
        "prefill_ratio_vs_best_peer": {
            "int8": prefill(grpc("int8"), INT8_PEERS), "int4": prefill(grpc("int4"), INT4_PEERS),
            "int8, engine alone": prefill(engine("int8"), INT8_PEERS),
            "int4, engine alone": prefill(engine("int4"), INT4_PEERS),
            "int8, any bits": prefill(grpc("int8"), ALL_PEERS)},
        "realistic_ratio_vs_best_peer": {
            "int8": paired(samples, "realistic", 0, grpc("int8"), INT8_PEERS),
            "int4": paired(samples, "realistic", 0, grpc("int4"), INT4_PEERS)},
        "grpc_over_engine_alone": {
            precision: {str(c): paired(samples, "A", c, grpc(precision, False), [engine(precision)])
                        for c in concurrencies} for precision in ("int8", "int4")},
        "speculation_on_over_off": speculation,
    }


def verdicts(ratios, concurrencies):
    """`(what, number, target, met)` of each target that this benchmark shows; met is `None` without a number."""
    checks = []

    def check(what, number, target):
        checks.append((what, number, target, None if number is None else number >= target))

    for c in map(str, concurrencies):
        check("int8 through gRPC over the best int8 peer, concurrency " + c, ratios["ratio_vs_best_peer"][c], 2.0)
    for c in map(str, concurrencies):
        check("int4 through gRPC over llama.cpp Q4_0, concurrency " + c, ratios["ratio_vs_best_peer_int4"][c], 2.0)
    for precision in ("int8", "int4"):
        check("%s prefill over the best peer of the same bits" % precision,
              ratios["prefill_ratio_vs_best_peer"][precision], 2.0)
    if "16" in ratios["grpc_over_engine_alone"]["int8"]:
        check("gRPC over the engine alone, int8, concurrency 16", ratios["grpc_over_engine_alone"]["int8"]["16"], 0.95)
    for precision, by_workload in ratios["speculation_on_over_off"].items():
        for workload, number in by_workload.items():
            gains = workload == "realistic, concurrency 1"
            check("speculation on over off, %s, %s" % (precision, workload), number, 1.2 if gains else 0.97)
    return checks


def table(header, rows):
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    cells = [header] + [[cell if isinstance(cell, str) else "-" if cell is None else "%.4g" % cell for cell in row]
                        for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths)))
             for row in cells]
    return "\n".join(line.rstrip() for line in [lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def report(samples, concurrencies):
    """The tables that are printed."""
    rows = medians(samples)
    names = list(dict.fromkeys(row["contestant"] for row in rows))

    def cell(workload, concurrency, name, value="tokens_per_second"):
        for row in rows:
            if (row["workload"], row["concurrency"], row["contestant"]) == (workload, concurrency, name):
                return row.get(value)
        return None

    wide = table(["generated tok/s overall; prompt tok/s"] + ["B=%d" % c for c in concurrencies] + ["prefill", "realistic"],
                 [[name] + [cell("A", c, name) for c in concurrencies]
                  + [cell("prefill", 16, name), cell("realistic", 0, name)] for name in names])
    open_loop = [name for name in names if cell("realistic", 0, name) is not None]
    times = table(["realistic workload, seconds", "first p50", "first p95", "end p50", "end p95"],
                  [[name] + [cell("realistic", 0, name, value) for value in ("first_p50", "first_p95", "end_p50", "end_p95")]
                   for name in open_loop])
    return wide + "\n\n" + times
