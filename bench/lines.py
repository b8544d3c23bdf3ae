#!/usr/bin/env python3
"""Cache lines that change processors for each call of malloc or free, counted in a
simulated machine, and what they make of many threads. See README.md beside this file."""

import argparse
import csv
import io
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKLOADS = ("local", "ring", "one_producer", "one_consumer", "exchange", "lives")
# Threads that end: the time of one is not the allocator's.
UNTIMED = ("lives",)
# One thread makes all calls of this kind, half of all.
LONE = {"one_producer": "malloc", "one_consumer": "free"}
BLOCK = "block"  # memory of blocks, which the allocator clears, or reads
PROCESSORS = (1, 2, 4, 8, 16, 32)
FIELDS = ("operations", "reads", "writes", "fills", "cold", "kernel")


@dataclass
class Run:
    """What one simulation counted."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # by call, then as FIELDS
    lines: list[tuple[str, int, int]] = field(default_factory=list)  # what it holds, reads, writes; the hottest first
    places: list[tuple[str, int, int]] = field(default_factory=list)  # address in the program, the same

    def total(self, name: str) -> int:
        """Of all calls, and of ends of threads."""
        return sum(counts[name] for counts in self.counts.values())

    def each(self, *names: str) -> float:
        """A sum of totals for each operation."""
        return sum(self.total(name) for name in names) / self.total("operations")

    def moved(self, blocks: bool) -> tuple[float, float]:
        """Reads and writes for each operation, of blocks' own lines or of all others."""
        chosen = [line for line in self.lines if (line[0] == BLOCK) == blocks]
        return tuple(sum(line[i] for line in chosen) / self.total("operations") for i in (1, 2))

    def of_call(self, call: str) -> float:
        """Transfers for each call of malloc or of free."""
        counts = self.counts[call]
        return (counts["reads"] + counts["writes"]) / counts["operations"]

    def hottest(self) -> tuple[str, float]:
        """The line with the most transfers, and how many for each operation."""
        if not self.lines:
            return "none", 0.0
        what, reads, writes = self.lines[0]
        return what, (reads + writes) / self.total("operations")


def parse(text: str) -> Run:
    """What lines.c printed."""
    run = Run()
    for kind, *rest in csv.reader(io.StringIO(text)):
        if kind == "counts":
            run.counts[rest[0]] = dict(zip(FIELDS, map(int, rest[1:]), strict=True))
        else:
            address, reads, writes, name = rest
            moves = run.lines if kind == "line" else run.places
            moves.append((name or address, int(reads), int(writes)))
    if not run.counts or run.total("operations") == 0:
        raise ValueError("the simulation counted nothing")
    return run


@dataclass
class Model:
    """Time by the number of threads: work, and transfers that take `latency` each, one after the other."""

    work: float  # nanoseconds of an operation without transfers
    latency: float

    def time(self, transfers: float) -> float:
        """Nanoseconds of an operation."""
        return self.work + transfers * self.latency

    def ceiling(self, hottest: float) -> float:
        """Operations a nanosecond that one line lets through, of which there are `hottest` transfers for each."""
        return float("inf") if hottest == 0 else 1 / (hottest * self.latency)

    def speedup(self, processors: int, transfers: float, hottest: float, lone: float | None = None) -> tuple[float, str]:
        """Of so many processors to one that shares nothing, and what limits it: all processors, a line, or the
        one thread that makes half of all calls, of which each costs `lone` transfers."""
        limits = [(processors / self.time(transfers), ""), (self.ceiling(hottest), "line")]
        if lone is not None and processors > 1:
            limits.append((2 / self.time(lone), "thread"))
        rate, limit = min(limits)
        return rate * self.work, limit


def functions(program: str, addresses: list[str]) -> list[str]:
    """Of each address, the function, and the one that it was inlined into."""
    if not addresses:
        return []
    text = subprocess.run(["addr2line", "-a", "-f", "-i", "-e", program, *addresses], check=True, capture_output=True, text=True).stdout
    called: list[list[str]] = []
    for number, line in enumerate(text.splitlines()):
        if line.startswith("0x"):
            called.append([])
            began = number
        elif (number - began) % 2 == 1:  # after the address, pairs of function and file
            called[-1].append(line)
    return [names[0] if len(names) == 1 else f"{names[0]} in {names[-1]}" for names in called]


def grouped(moves: list[tuple[str, int, int]]) -> list[tuple[str, int, int, int]]:
    """What has the same name as one: name, reads, writes, how many; the most first."""
    reads, writes, number = Counter(), Counter(), Counter()
    for name, read, write in moves:
        reads[name] += read
        writes[name] += write
        number[name] += 1
    return sorted(((name, reads[name], writes[name], number[name]) for name in number), key=lambda row: -row[1] - row[2])


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """As Markdown."""
    print()
    for row in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(row) + " |")


def print_groups(title: str, run: Run, groups: list[tuple[str, int, int, int]], most: int) -> None:
    """The first ones for each operation."""
    operations = run.total("operations")
    rows = [[name, f"{reads / operations:.3f}", f"{writes / operations:.3f}", str(number)] for name, reads, writes, number in groups[:most]]
    print_table([title, "reads", "writes", "number"], rows)


def output(command: list[str], profile: str) -> str:
    """What a program prints, under a profile and no other options."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BULKHEAD_")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment | {"BULKHEAD_PROFILE": profile})
    if done.returncode != 0:
        sys.exit(f"lines.py: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def parse_arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description="Counts cache lines that change processors in a simulated machine.")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), metavar="LIST", help="default all: %(default)s")
    parser.add_argument("--processors", default=",".join(map(str, PROCESSORS)), metavar="LIST", help="default %(default)s; 63 at most")
    parser.add_argument("--operations", type=int, default=10000, metavar="N", help="for each processor, after as many that are not counted")
    parser.add_argument("--profile", default="secure", help="the library's (default %(default)s)")
    parser.add_argument("--latency", metavar="LIST", help="of a transfer, in ns; default: measured between two processors")
    parser.add_argument("--work", type=float, metavar="NS", help="of an operation without transfers; default: measured for each workload")
    parser.add_argument("--what", type=int, default=0, metavar="N", help="print the N kinds of lines that move most, for each simulation")
    parser.add_argument("--where", type=int, default=0, metavar="N", help="print the N functions where most lines move, for each simulation")
    parser.add_argument("--csv", metavar="FILE", help="write all counts to FILE")
    parser.add_argument("--build", default=str(ROOT / "build"), metavar="DIR", help="the build folder with bench/ in it (default build)")
    options = parser.parse_args()
    options.workloads = options.workloads.split(",")
    options.latency = [float(latency) for latency in options.latency.split(",")] if options.latency else None
    options.processors = [int(number) for number in options.processors.split(",")]
    if set(options.workloads) - set(WORKLOADS) or not all(1 <= number <= 63 for number in options.processors) or options.operations < 1:
        parser.error("no such workload, number of processors or operations")
    return options


def write_csv(path: str, runs: dict[tuple[str, int], Run]) -> None:
    """A row for each simulation and call."""
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(["workload", "processors", "call", *FIELDS, "hottest", "hottest_each"])
        for (workload, number), run in runs.items():
            for call, counts in run.counts.items():
                writer.writerow([workload, number, call, *(counts[name] for name in FIELDS), run.hottest()[0], f"{run.hottest()[1]:.5f}"])


def print_counts(options: argparse.Namespace, runs: dict[tuple[str, int], Run]) -> None:
    """Transfers, and the hottest lines."""
    head = [str(number) for number in options.processors]
    most = max(options.processors)
    rows = []
    for name in options.workloads:
        for blocks in (False, True):
            moved = [runs[name, number].moved(blocks) for number in options.processors]
            if not blocks or any(sum(each) >= 0.05 for each in moved):
                calls = "" if blocks else f"{1000 * runs[name, most].each('kernel'):.1f}"
                rows.append([name + ", blocks" * blocks, *(f"{reads:.2f} + {writes:.2f}" for reads, writes in moved), calls])
    print_table(["transfers (reads + writes)", *head, f"kernel calls of 1,000, {most}"], rows)
    rows = [[name, *(f"{runs[name, n].hottest()[1]:.3f}" for n in options.processors), runs[name, most].hottest()[0]]
            for name in options.workloads]
    print_table(["transfers of the hottest line", *head, f"which, {most}"], rows)


def print_model(options: argparse.Namespace, runs: dict[tuple[str, int], Run]) -> None:
    """What the counts make of N processors, a table for each latency."""
    timed = str(Path(options.build) / "bench" / "timed")
    work = {}
    for name in options.workloads:
        if options.work:
            work[name] = options.work
        elif name not in UNTIMED:
            work[name] = float(output([timed, name, "1" if name == "local" else "2"], options.profile))
    for latency in options.latency or [float(output([timed, "--latency"], options.profile))]:
        rows = []
        for name, alone in work.items():
            model = Model(alone, latency)
            rows.append([name, f"{alone:.1f}"])
            for number in options.processors:
                run = runs[name, number]
                lone = run.of_call(LONE[name]) if name in LONE else None
                speedup, limit = model.speedup(number, run.each("reads", "writes"), run.hottest()[1], lone)
                rows[-1].append(f"{speedup:.1f}" + (f" ({limit})" if limit else ""))
        print_table([f"speedup, a transfer of {latency:.0f} ns", "ns without", *map(str, options.processors)], rows)


def main() -> int:
    """Returns the exit status."""
    options = parse_arguments()
    program = str(Path(options.build) / "bench" / "lines")
    if not Path(program).is_file():
        sys.exit(f"lines.py: there is no {program}: build with -DBULKHEAD_BENCH=ON")
    runs = {}
    for name in options.workloads:
        for number in options.processors:
            run = runs[name, number] = parse(output([program, name, str(number), str(options.operations)], options.profile))
            if options.what:
                print_groups(f"{name}, {number}: lines", run, grouped(run.lines), options.what)
            if options.where:
                named = functions(program, [place[0] for place in run.places])
                places = [(function, *place[1:]) for function, place in zip(named, run.places, strict=True)]
                print_groups(f"{name}, {number}: functions", run, grouped(places), options.where)
    print_counts(options, runs)
    print_model(options, runs)
    if options.csv:
        write_csv(options.csv, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
