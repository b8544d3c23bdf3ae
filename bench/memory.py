#!/usr/bin/env python3
"""How much memory stays resident, and what processes cost, under several allocators
by turns, as ratios to a base. See README.md beside this file."""

import argparse
import csv
import random
import statistics
import sys
from pathlib import Path

import allocators
from choose import add_common, check_build, choose_allocators, conditions, die, parse_common, say
from launch import Failure, output_of
from report import cell, mean_cell, print_lines
from verdict import BASE, judge

KINDS = ["sizes", "shrink", "server", "processes"]
PROCESSES = 200
DAYS = 8  # of programs/memory.c
GROWTH_BOUND = 1.10
PEAK_BOUND = 1.10
# The scale at which `server` takes an hour where it takes half a minute at 1.
HOUR = 120


def parse_arguments():
    """The options, as a namespace."""
    parser = argparse.ArgumentParser(prog="bulkhead bench memory", description="Compares resident memory; ratios to a base, smaller is better.")
    add_common(parser, 1, allocators.USUAL)
    parser.add_argument("--kinds", default=",".join(KINDS), metavar="LIST", help="which benchmarks (default all)")
    parser.add_argument("--hours", type=float, metavar="H", help="let the server run for some H hours for each allocator")
    parser.add_argument("--csv", metavar="FILE", help="write all moments of all runs to FILE")
    options = parse_common(parser)
    options.kinds = options.kinds.split(",")
    unknown = [kind for kind in options.kinds if kind not in KINDS]
    if unknown:
        die(f"there is no kind '{unknown[0]}'; there are: {', '.join(KINDS)}")
    if options.hours is not None and options.hours <= 0:
        parser.error("--hours must be above 0")
    return options


# ------------------------------------------------------------------ what a run says

def moments_of(text: str) -> list[tuple[int, int]]:
    """Live and resident KiB, as programs/memory.c printed them."""
    return [(int(live), int(resident)) for live, resident in (line.split() for line in text.splitlines())]


def day_means(resident: list[int]) -> list[float]:
    """The mean of each day of the server, or of as many parts as there are moments."""
    days = min(DAYS, len(resident))
    return [statistics.mean(resident[day * len(resident) // days:(day + 1) * len(resident) // days]) for day in range(days)]


def summary(kind: str, moments: list[tuple[int, int]]) -> dict[str, float]:
    """The numbers of one run, by the name of their row."""
    resident = [rss for _, rss in moments]
    numbers = {f"{kind}: peak": max(resident), f"{kind}: steady": statistics.median(resident[len(resident) // 2:])}
    if kind == "shrink":
        numbers["shrink: peak"] = resident[0]
        numbers["shrink: steady"] = resident[-1]
    if kind == "server":
        days = day_means(resident)
        # The first day is start-up.
        numbers["server: growth"] = days[-1] / days[min(1, len(days) - 1)]
    return numbers


def one_memory(kind, allocator, options, seed):
    """Runs one load; its moments."""
    scale, timeout = options.scale, options.timeout
    if kind == "server" and options.hours is not None:
        scale, timeout = options.hours * HOUR, max(timeout, options.hours * 4 * 3600)
    return moments_of(output_of([str(Path(options.build) / "bench" / "memory"), kind, repr(scale)], allocator.library, seed,
                                timeout, **allocator.environment))


def one_process(allocator, options, seed):
    """The median microseconds of a start and of a fork."""
    program = str(Path(options.build) / "bench" / "processes")
    count = str(max(2, round(PROCESSES * options.scale)))
    start = output_of([program, "start", allocator.library, count], "", seed, options.timeout, **allocator.environment)
    fork = output_of([program, "fork", count], allocator.library, seed, options.timeout, **allocator.environment)
    return {"start": statistics.median(map(int, start.split())) / 1000, "fork": statistics.median(map(int, fork.split())) / 1000}


# ------------------------------------------------------------------------- measuring

class Numbers:
    """All runs: values[row][allocator][round]."""

    def __init__(self):
        self.values = {}
        self.failures = set()
        self.moments = []

    def add(self, number, allocator, numbers):
        for row, value in numbers.items():
            self.values.setdefault(row, {}).setdefault(allocator, {})[number] = value

    def ratios(self, row, allocator, base):
        """To the base in the same round."""
        below = self.values[row].get(base, {})
        return [value / below[number] for number, value in self.values[row].get(allocator, {}).items() if number in below]

    def median(self, row, allocator):
        return statistics.median(self.values[row][allocator].values()) if self.values.get(row, {}).get(allocator) else None


def measure(options, chosen):
    """Everything, by turns."""
    numbers = Numbers()
    order = random.Random(options.seed)
    for number in range(1, options.rounds + 1):
        seed = options.seed + number
        for kind in options.kinds:
            for allocator in order.sample(chosen, len(chosen)):
                try:
                    if kind == "processes":
                        numbers.add(number, allocator.name, one_process(allocator, options, seed))
                        continue
                    moments = one_memory(kind, allocator, options, seed)
                except Failure as failure:
                    say(f"ERROR: {allocator.name} in {kind} with BENCH_SEED={seed}: {failure}")
                    numbers.failures.add(allocator.name)
                    continue
                numbers.add(number, allocator.name, summary(kind, moments))
                numbers.moments += [(number, seed, kind, allocator.name, at, *moment) for at, moment in enumerate(moments)]
    return numbers


# -------------------------------------------------------------------------- printing

def show(row: str, value: float | None) -> str:
    """The number itself, in its unit."""
    if value is None:
        return "-"
    if row in ("start", "fork"):
        return f"{value:.0f} us"
    return f"{value:.2f}" if row.endswith("growth") else f"{value / 1024:.1f} MiB"


def table(numbers: Numbers, names: list[str], base: str) -> None:
    """Ratios, but for growth, which is one already."""
    others = [name for name in names if name != base]
    lines = [[f"resident memory or time / {base}", *others, f"{base} itself"]]
    memory: dict[str, list[float | None]] = {name: [] for name in others}
    for row in numbers.values:
        line = [row]
        for name in others:
            ratios = numbers.ratios(row, name, base)
            if row.endswith("growth"):
                line.append(show(row, numbers.median(row, name)))
                continue
            line.append(cell(ratios) if ratios else "-")
            if row not in ("start", "fork"):
                memory[name].append(statistics.median(ratios) if ratios else None)
        lines.append([*line, show(row, numbers.median(row, base))])
    if any(memory.values()):
        lines.append(["geometric mean, memory", *(mean_cell(memory[name]) for name in others), ""])
    print()
    print_lines(lines)


def verdict(numbers: Numbers, base: str, judged: str) -> list[str]:
    """The budget's two bounds, for those that were measured."""
    lines = []
    peaks = [numbers.ratios(row, judged, base) for row in numbers.values if row.endswith("peak")]
    if peaks and all(peaks):
        mean = statistics.geometric_mean(statistics.median(ratios) for ratios in peaks)
        lines.append(judge(f"peaks of {judged}", mean, PEAK_BOUND, ""))
    growth = numbers.median("server: growth", judged)
    if growth is not None:
        lines.append(judge(f"growth of {judged}", growth, GROWTH_BOUND, ""))
    return lines


def main():
    """Returns the exit status."""
    options = parse_arguments()
    check_build(options)
    chosen, base = choose_allocators(options)
    print(f"{conditions(options)}; each cell: median of ratios, quartiles; growth: last day / second day", flush=True)
    try:
        numbers = measure(options, chosen)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    table(numbers, [allocator.name for allocator in chosen], base)
    lines = verdict(numbers, base, "bulkhead") if base == BASE else []
    if lines:
        print("", *lines, sep="\n")
    if options.csv:
        with open(options.csv, "w", newline="", encoding="ascii") as file:
            writer = csv.writer(file)
            writer.writerow(["round", "seed", "kind", "allocator", "moment", "live_kib", "resident_kib"])
            writer.writerows(numbers.moments)
    return 1 if numbers.failures else 0


if __name__ == "__main__":
    sys.exit(main())
