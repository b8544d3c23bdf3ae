#!/usr/bin/env python3
"""Tests of what the benchmarks compute and say; nothing is measured.

    selftest.py          runs them"""

import unittest
from collections import Counter
from types import SimpleNamespace

import latency
import lines
import memory
import plot
import verdict
from launch import Sample
from report import Results


def results_of(table: dict[str, dict[str, list[float]]]) -> Results:
    """Samples in which time and memory are the numbers of table[row][allocator]."""
    results = Results()
    for row, columns in table.items():
        for name, values in columns.items():
            for number, value in enumerate(values):
                results.add(row, name, number, Sample(value, value, round(value * 1000)))
    return results


def seconds(sample: Sample) -> float:
    return sample.seconds


def verdict_of(table, groups, names=("bulkhead",), base="mimalloc", failures=(), all_rows=None):
    """The lines for that table."""
    results = results_of(table)
    results.failures.update(failures)
    return verdict.verdict(results, groups, all_rows or groups, list(names), base, seconds)


class Percentiles(unittest.TestCase):
    def test_least_time_that_the_part_does_not_exceed(self):
        histogram = Counter({10: 98, 20: 1, 30: 1})
        self.assertEqual(latency.percentile(histogram, 0.5), 10)
        self.assertEqual(latency.percentile(histogram, 0.98), 10)
        self.assertEqual(latency.percentile(histogram, 0.99), 20)

    def test_too_few_calls_have_none(self):
        self.assertIsNone(latency.percentile(Counter({10: 9999}), 0.9999))
        self.assertEqual(latency.percentile(Counter({10: 9999, 70: 1}), 0.9999), 10)
        self.assertIsNone(latency.percentile(Counter(), 0.5))

    def test_what_is_preempted_is_not_in_all(self):
        own = latency.parse("malloc plain 10 5\nmalloc fault 900 2\nmalloc preempted 70000 1\nfree plain 8 4\n")
        self.assertEqual(latency.merged(own, "malloc", latency.ROWS["all"]), Counter({10: 5, 900: 2}))
        self.assertEqual(latency.merged(own, "free", latency.ROWS["with a fault"]), Counter())

    def test_verdict_compares_the_tail(self):
        slow = {("malloc", "plain"): Counter({10: 9999, 50: 90001}), ("free", "plain"): Counter({8: 100000})}
        fast = {("malloc", "plain"): Counter({10: 100000}), ("free", "plain"): Counter({9: 100000})}
        lines = latency.verdict({"bulkhead": slow, "mimalloc": fast}, "mimalloc", "bulkhead")
        self.assertEqual(lines, ["verdict: malloc p99.99 of bulkhead 50 ns, of mimalloc 10 ns: OVER",
                                 "verdict: free p99.99 of bulkhead 8 ns, of mimalloc 9 ns: within"])


class Memory(unittest.TestCase):
    def test_growth_is_last_day_to_second(self):
        resident = [50] * 10 + [100] * 60 + [120] * 10
        numbers = memory.summary("server", [(1, rss) for rss in resident])
        self.assertAlmostEqual(numbers["server: growth"], 1.2)
        self.assertEqual(numbers["server: peak"], 120)
        self.assertEqual(numbers["server: steady"], 100)

    def test_short_runs_have_fewer_days(self):
        self.assertAlmostEqual(memory.summary("server", [(1, 10), (1, 20), (1, 30)])["server: growth"], 1.5)
        self.assertAlmostEqual(memory.summary("server", [(1, 10)])["server: growth"], 1)

    def test_shrink_is_before_and_at_the_end(self):
        numbers = memory.summary("shrink", [(100, 110), (5, 110), (5, 60), (5, 9)])
        self.assertEqual(numbers, {"shrink: peak": 110, "shrink: steady": 9})

    def test_verdict_of_peaks_and_growth(self):
        numbers = memory.Numbers()
        numbers.add(1, "mimalloc", {"sizes: peak": 100, "server: peak": 100, "server: growth": 1})
        numbers.add(1, "bulkhead", {"sizes: peak": 90, "server: peak": 160, "server: growth": 1.1})
        self.assertEqual(memory.verdict(numbers, "mimalloc", "bulkhead"),
                         ["verdict: peaks of bulkhead 1.20, bound 1.10: OVER",
                          "verdict: growth of bulkhead 1.10, bound 1.10: within"])

    def test_ratios_are_within_a_round(self):
        numbers = memory.Numbers()
        numbers.add(1, "mimalloc", {"start": 100})
        numbers.add(2, "mimalloc", {"start": 200})
        numbers.add(2, "bulkhead", {"start": 300})
        self.assertEqual(numbers.ratios("start", "bulkhead", "mimalloc"), [1.5])


class Verdict(unittest.TestCase):
    groups = {"suite": ["a", "b"], "loops": ["c"]}

    def table(self, first, second, loop):
        return {row: {"mimalloc": [1.0] * 3, "bulkhead": [value] * 3} for row, value in (("a", first), ("b", second), ("c", loop))}

    def test_within(self):
        self.assertEqual(verdict_of(self.table(1.0, 1.1, 1.5), self.groups),
                         ["verdict: bulkhead, time, suite: 1.05, bound 1.05: within",
                          "verdict: bulkhead, time, loops: 1.50, bound 1.50: within",
                          "verdict: bulkhead, rows of the suite, bound 1.25: within",
                          "verdict: bulkhead, peak memory, suite: 1.05, bound 1.10: within"])

    def test_over_names_the_worst_row_first(self):
        lines = verdict_of(self.table(1.3, 1.6, 1.51), self.groups)
        self.assertIn("verdict: bulkhead, time, suite: 1.44, bound 1.05: OVER", lines)
        self.assertIn("verdict: bulkhead, time, loops: 1.51, bound 1.50: OVER", lines)
        self.assertIn("verdict: bulkhead, rows of the suite, bound 1.25: OVER in b 1.60, a 1.30", lines)
        self.assertIn("verdict: bulkhead, peak memory, suite: 1.44, bound 1.10: OVER", lines)

    def test_a_failed_row_does_not_help(self):
        lines = verdict_of(self.table(1.0, 1.0, 1.0), self.groups, failures=[("a", "bulkhead")])
        self.assertIn("verdict: bulkhead, time, suite: none, a row has no number: OVER", lines)
        self.assertIn("verdict: bulkhead, rows of the suite, bound 1.25: OVER in a failed", lines)

    def test_rows_left_out_are_told(self):
        lines = verdict_of(self.table(1.0, 1.0, 1.0), {"suite": ["a"]}, all_rows=self.groups)
        self.assertIn("verdict: bulkhead, time, suite: 1.00, bound 1.05: within (1 of 2 rows not measured)", lines)
        self.assertFalse([line for line in lines if "loops" in line])

    def test_only_against_the_budgets_base(self):
        self.assertEqual(verdict_of(self.table(9, 9, 9), self.groups, base="glibc"), [])


class Plot(unittest.TestCase):
    def test_script_has_medians_and_quartiles(self):
        results = results_of({"a": {"mimalloc": [1, 1, 1], "x": [1, 2, 3]}, "b": {"mimalloc": [2], "x": [1]}})
        text = plot.script("it's.svg", results, ["a", "b"], ["x"], "mimalloc", seconds, "title")
        self.assertIn("set output 'it''s.svg'\n", text)
        self.assertIn("$data0 << END\n0.000 2.0000 1.5000 2.5000\n1.000 0.5000 0.5000 0.5000\nEND\n", text)
        self.assertIn("title 'x'", text)

    def test_a_failed_row_has_no_mark(self):
        results = results_of({"a": {"mimalloc": [1], "x": [1]}})
        results.failures.add(("a", "x"))
        self.assertEqual(plot.points(results, ["a"], "x", "mimalloc", seconds, 0), [])

    def test_kinds_of_files(self):
        self.assertIn("must end in", plot.why_not("table.gif"))
        self.assertIn("no folder", plot.why_not("no-such-folder/table.svg"))


class Choice(unittest.TestCase):
    def test_sum_of_histograms_of_rounds(self):
        printed = iter(["malloc plain 10 1\n", "malloc plain 10 2\n", "malloc fault 20 1\n", "malloc plain 30 1\n"])
        original, latency.output_of = latency.output_of, lambda *arguments, **extra: next(printed)
        try:
            allocator = SimpleNamespace(name="x", library="", environment={})
            options = SimpleNamespace(seed=1, rounds=4, build="", scale=1.0, timeout=1)
            histograms, failed = latency.measure(options, [allocator])
        finally:
            latency.output_of = original
        self.assertEqual(histograms["x"], {("malloc", "plain"): Counter({10: 3, 30: 1}), ("malloc", "fault"): Counter({20: 1})})
        self.assertFalse(failed)


class Lines(unittest.TestCase):
    TEXT = """counts,malloc,100,20,30,1,2,3
counts,free,100,10,0,0,0,1
counts,end,0,0,0,0,0,0
line,0x40,5,35,"map"
line,0x80,10,2,"map"
line,0xc0,0,8,"block"
place,0x1000,30,30,""
"""

    def test_what_a_simulation_counted(self):
        run = lines.parse(self.TEXT)
        self.assertEqual(run.total("operations"), 200)
        self.assertAlmostEqual(run.each("reads", "writes"), 0.3)
        self.assertAlmostEqual(run.of_call("malloc"), 0.5)
        self.assertEqual(run.moved(True), (0, 0.04))
        self.assertEqual(run.moved(False), (0.075, 0.185))
        self.assertEqual(run.hottest(), ("map", 0.2))
        self.assertEqual(lines.grouped(run.lines), [("map", 15, 37, 2), ("block", 0, 8, 1)])
        self.assertEqual(run.places, [("0x1000", 30, 30)])

    def test_a_simulation_that_counted_nothing(self):
        self.assertRaises(ValueError, lines.parse, "counts,malloc,0,0,0,0,0,0\n")
        self.assertRaises(ValueError, lines.parse, "")

    def test_nothing_shared_is_as_many_times_as_fast(self):
        self.assertEqual(lines.Model(20, 50).speedup(32, 0, 0), (32, ""))

    def test_transfers_take_their_time(self):
        self.assertEqual(lines.Model(20, 40).speedup(8, 0.5, 0), (4, ""))

    def test_the_hottest_line_is_a_ceiling(self):
        self.assertEqual(lines.Model(20, 40).speedup(32, 0.5, 0.1), (5, "line"))

    def test_one_thread_makes_half_of_the_calls(self):
        self.assertEqual(lines.Model(20, 40).speedup(32, 0.5, 0, 0.5), (1, "thread"))
        self.assertEqual(lines.Model(20, 40).speedup(1, 0, 0, 0), (1, ""))


if __name__ == "__main__":
    unittest.main()
