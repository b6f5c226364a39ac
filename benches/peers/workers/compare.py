"""How far logits are from the reference's: jobs name two files as the other workers wrote them."""

import jobs
import numpy

ROWS = 64


def log_softmax(logits):
    logits = logits.astype(numpy.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))


def work(job):
    """Mean KL divergence from the reference, and how often the most likely token is the same."""
    reference, other = (numpy.memmap(job[name], dtype=numpy.float32, mode="r").reshape(-1, job["vocabulary"])
                        for name in ("reference", "other"))
    if reference.shape != other.shape:
        raise SystemExit("%s has logits of %d positions, the reference of %d" % (job["other"], len(other), len(reference)))
    divergences, same = [], 0
    for start in range(0, len(reference), ROWS):
        p, q = log_softmax(reference[start:start + ROWS]), log_softmax(other[start:start + ROWS])
        divergences.append((numpy.exp(p) * (p - q)).sum(axis=1))
        same += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
    divergences = numpy.concatenate(divergences)
    return {"kl": float(divergences.mean()), "kl_standard_error": float(divergences.std() / len(divergences) ** 0.5),
            "kl_p99": float(numpy.percentile(divergences, 99)), "top1": same / len(reference), "positions": len(reference)}


jobs.answer(work)
