"""What the benchmark makes of its samples. `python3 -m unittest discover benches/peers`."""

import json
import unittest

import stats


def sample(round_, workload, concurrency, contestant, rate, **values):
    return {"round": round_, "workload": workload, "concurrency": concurrency, "contestant": contestant,
            "values": {"tokens_per_second": rate, **values}}


class Medians(unittest.TestCase):
    def test_each_number_is_the_median_of_its_rounds(self):
        samples = [sample(r, "A", 8, "x", rate, seconds=s) for r, rate, s in [(0, 10, 3), (1, 50, 1), (2, 20, 2)]]
        row, = stats.medians(samples)
        self.assertEqual((row["tokens_per_second"], row["seconds"], row["rounds"]), (20, 2, 3))
        self.assertEqual((row["lowest"], row["highest"]), (10, 50))

    def test_workloads_and_concurrencies_are_not_mixed(self):
        samples = [sample(0, "A", 1, "x", 1), sample(0, "A", 8, "x", 2), sample(0, "realistic", 1, "x", 3)]
        self.assertEqual([row["tokens_per_second"] for row in stats.medians(samples)], [1, 2, 3])

    def test_percentiles_are_values_that_occurred(self):
        values = list(range(1, 21))
        self.assertEqual(stats.percentile(values, 0.5), 10)
        self.assertEqual(stats.percentile(values, 0.95), 19)
        self.assertEqual(stats.percentile([7], 0.95), 7)


class Ratios(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        # The machine was half as fast in the second round: medians of each alone would give another ratio.
        samples = [sample(0, "A", 1, "ours", 30), sample(0, "A", 1, "peer", 10),
                   sample(1, "A", 1, "ours", 15), sample(1, "A", 1, "peer", 5)]
        self.assertEqual(stats.paired(samples, "A", 1, "ours", ["peer"]), 3.0)

    def test_the_best_peer_of_the_round_counts(self):
        samples = [sample(0, "A", 1, "ours", 30), sample(0, "A", 1, "a", 10), sample(0, "A", 1, "b", 15)]
        self.assertEqual(stats.paired(samples, "A", 1, "ours", ["a", "b", "absent"]), 2.0)

    def test_a_ratio_without_its_parts_is_none(self):
        ours, peer = sample(0, "A", 1, "ours", 30), sample(1, "A", 1, "peer", 10)
        for samples in ([], [ours], [peer], [ours, peer]):
            self.assertIsNone(stats.paired(samples, "A", 1, "ours", ["peer"]))


class Shape(unittest.TestCase):
    def everything(self):
        return [sample(0, workload, c, name, 200 if name.startswith("ours") else 80, first_p50=1, first_p95=2, end_p50=3,
                       end_p95=4)
                for workload, c in [("A", 1), ("A", 8), ("A", 16), ("A", 32), ("prefill", 16), ("realistic", 0),
                                    ("realistic", 1)]
                for name in stats.ALL_PEERS + [stats.engine(p) for p in ("int8", "int4", "fp32")]
                + [stats.grpc(p, s) for p in ("int8", "int4", "fp32") for s in (True, False)]]

    def test_the_ratios_have_the_keys_that_readers_look_for(self):
        summary = json.loads(json.dumps(stats.summary(self.everything(), [1, 8, 16, 32])))
        for key in ("ratio_vs_best_peer", "ratio_vs_best_peer_int4"):
            self.assertEqual(summary[key], {"1": 2.5, "8": 2.5, "16": 2.5, "32": 2.5})
        self.assertEqual(summary["grpc_over_engine_alone"]["int8"]["16"], 1.0)
        self.assertEqual(summary["speculation_on_over_off"]["int8"]["realistic, concurrency 1"], 1.0)

    def test_what_was_not_measured_is_null_and_not_left_out(self):
        summary = stats.summary([s for s in self.everything() if s["contestant"] not in stats.INT4_PEERS], [1, 8])
        self.assertEqual(summary["ratio_vs_best_peer_int4"], {"1": None, "8": None})
        self.assertEqual(summary["ratio_vs_best_peer"], {"1": 2.5, "8": 2.5})

    def test_targets_are_met_missed_or_unknown(self):
        samples = [s for s in self.everything() if s["contestant"] not in stats.INT4_PEERS]
        checks = stats.verdicts(stats.summary(samples, [1, 16]), [1, 16])
        met = {what: met for what, _, _, met in checks}
        self.assertIs(met["int8 through gRPC over the best int8 peer, concurrency 16"], True)
        self.assertIsNone(met["int4 through gRPC over llama.cpp Q4_0, concurrency 16"])
        self.assertIs(met["speculation on over off, int8, realistic, concurrency 1"], False)
        self.assertIs(met["speculation on over off, int8, A, concurrency 16"], True)

    def test_the_report_has_a_line_for_every_contestant(self):
        report = stats.report(self.everything(), [1, 8, 16, 32])
        for name in stats.ALL_PEERS + [stats.grpc("int8"), stats.engine("int4")]:
            self.assertTrue(any(line.startswith(name) for line in report.splitlines()), name)


if __name__ == "__main__":
    unittest.main()
