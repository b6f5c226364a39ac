"""What a run makes of engines that answer, fail and cheat. No engine runs here."""

import argparse
import unittest

import peers
import quality
from install import PeerError
from workload import Workload

OPTIONS = argparse.Namespace(rounds=2, quick=False, concurrency=[1, 8])


class Prompts:
    """Stands in for the worker that makes prompts: a token for each character."""

    def ask(self, job):
        lengths = [job["exactly"] or 0 if "exactly" in job else 100 + len(code) % 500 for code in job["codes"]]
        return [{"code": code, "tokens": [1] * length} for code, length in zip(job["codes"], lengths)]


class Fake:
    """An engine that takes a second for everything."""

    def __init__(self, name, fails=lambda items: False):
        self.name, self.fails, self.failures = name, fails, 0
        self.started = self.closed = 0

    def start(self):
        self.started += 1

    def close(self):
        self.closed += 1

    def run(self, items, _window):
        if self.fails(items):
            raise PeerError("it broke")
        times = [dict(at=0.0, first=0.5, end=1.0, generated_tokens=item["generate"]) for item in items]
        return {"seconds": 1.0, "items": times}


def run(*engines):
    workload = Workload(Prompts(), peers.PROMPT_TOKENS, peers.GENERATE)
    run = peers.Run(OPTIONS, workload, [(engine, ("A", "prefill", "realistic")) for engine in engines], {})
    for round_ in range(OPTIONS.rounds):
        run.round(round_)
    run.close()
    return run


class Rounds(unittest.TestCase):
    def test_everyone_does_everything_in_every_round(self):
        a, b = Fake("a"), Fake("b")
        done = run(a, b)
        keys = [(s["round"], s["workload"], s["concurrency"], s["contestant"]) for s in done.samples]
        stages = [("A", 1), ("A", 8), ("prefill", 16), ("realistic", 0)]
        self.assertEqual(sorted(keys), sorted((r, w, c, n) for r in range(2) for w, c in stages for n in "ab"))
        self.assertEqual([key[3] for key in keys[:4]], ["a", "b", "a", "b"], "they take turns")
        self.assertEqual([key[3] for key in keys[8:12]], ["b", "a", "b", "a"], "and so does who begins")
        self.assertEqual((a.started, a.closed, done.failures), (1, 1, []))

    def test_who_fails_is_told_and_started_once_more(self):
        broken, sound = Fake("broken", fails=lambda items: len(items) == 8), Fake("sound")
        done = run(broken, sound)
        self.assertEqual([failure["contestant"] for failure in done.failures], ["broken", "broken"])
        self.assertEqual((broken.started, broken.closed), (2, 2))
        self.assertEqual(sum(s["contestant"] == "sound" for s in done.samples), 8, "the others go on")
        self.assertTrue(any(s["contestant"] == "broken" for s in done.samples), "what it did counts")

    def test_an_answer_of_another_length_is_no_sample(self):
        items = [{"tokens": [1] * 128, "generate": 48}]
        short = {"seconds": 1.0, "items": [{"generated_tokens": 20}]}
        with self.assertRaises(PeerError):
            peers.measured("A", items, short)

    def test_prefill_counts_prompts_and_the_others_answers(self):
        items = [{"tokens": [1] * 128, "generate": 1}] * 2
        times = {"seconds": 2.0, "items": None, "generated": 2}
        self.assertEqual(peers.measured("prefill", items, times)["tokens_per_second"], 128)
        self.assertEqual(peers.measured("A", items, times)["tokens_per_second"], 1)


class Items(unittest.TestCase):
    def setUp(self):
        self.workload = Workload(Prompts(), 128, 48)

    def test_no_prompt_of_workload_a_comes_twice(self):
        codes = [item["code"] for _ in range(3) for item in self.workload.exact(57)]
        self.assertEqual(len(set(codes)), len(codes))

    def test_arrivals_are_the_same_in_every_run_and_in_order(self):
        first, again = self.workload.realistic(24, 3, 0), Workload(Prompts(), 128, 48).realistic(24, 3, 0)
        self.assertEqual(first, again)
        self.assertNotEqual(first, self.workload.realistic(24, 3, 1))
        at = [item["at"] for item in first]
        self.assertEqual(at, sorted(at))
        self.assertTrue(0 == at[0] < at[-1] < 9)


class Quality(unittest.TestCase):
    def test_what_was_not_measured_is_neither_met_nor_missed(self):
        kl = {"int8": 0.003, "int4": 0.007, "llama.cpp Q8_0": 0.006, "int4 requantized from fp32": 0.2}
        met = {what: met for what, _, _, met in quality.verdicts(kl)}
        self.assertEqual(met, {"KL of int8, no more than llama.cpp Q8_0": True,
                               "KL of int4, no more than llama.cpp Q8_0": False,
                               "KL of int4 requantized from fp32, no more than llama.cpp Q4_0": None,
                               "KL of int4 requantized from bf16, no more than llama.cpp Q4_0": None})


if __name__ == "__main__":
    unittest.main()
