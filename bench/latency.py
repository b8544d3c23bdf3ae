#!/usr/bin/env python3
"""How long single calls of malloc and free take under several allocators, by turns:
percentiles and the maximum. See README.md beside this file."""

import argparse
import csv
import random
import sys
from collections import Counter
from pathlib import Path

import allocators
from choose import add_common, check_build, choose_allocators, conditions, parse_common, say
from launch import Failure, output_of
from report import print_lines
from verdict import BASE

PERCENTILES = (0.5, 0.99, 0.999, 0.9999)
# What a row counts: all but those that others disturbed, and its two parts.
ROWS = {"all": ("plain", "fault"), "without a fault": ("plain",), "with a fault": ("fault",), "preempted": ("preempted",)}
# Of 10,000 calls the slowest one is p99.99: with fewer there is none.
JUDGED = 0.9999


def parse_arguments():
    """The options, as a namespace."""
    parser = argparse.ArgumentParser(prog="bulkhead bench latency", description="Times single calls; nanoseconds, smaller is better.")
    add_common(parser, 5, allocators.USUAL)
    parser.add_argument("--csv", metavar="FILE", help="write the histograms to FILE")
    return parse_common(parser)


def parse(text: str) -> dict[tuple[str, str], Counter]:
    """The histograms that programs/latency.c printed: calls by nanoseconds, by call and kind."""
    histograms: dict[tuple[str, str], Counter] = {}
    for line in text.splitlines():
        call, kind, nanoseconds, calls = line.split()
        histograms.setdefault((call, kind), Counter())[int(nanoseconds)] += int(calls)
    return histograms


def percentile(histogram: Counter, part: float) -> int | None:
    """The least time that `part` of the calls do not exceed; None of too few calls."""
    total = sum(histogram.values())
    if total == 0 or total * (1 - part) < 1 - 1e-9:
        return None
    below = 0
    for nanoseconds in sorted(histogram):
        below += histogram[nanoseconds]
        if below >= part * total:
            return nanoseconds
    return max(histogram)


def measure(options, chosen):
    """All rounds, summed up: histograms[allocator][call, kind]. Failed ones are left out."""
    histograms = {allocator.name: {} for allocator in chosen}
    failed = set()
    order = random.Random(options.seed)
    for number in range(1, options.rounds + 1):
        for allocator in order.sample(chosen, len(chosen)):
            try:
                text = output_of([str(Path(options.build) / "bench" / "latency"), repr(options.scale)], allocator.library,
                                 options.seed + number, options.timeout, **allocator.environment)
            except Failure as failure:
                say(f"ERROR: {allocator.name} with BENCH_SEED={options.seed + number}: {failure}")
                failed.add(allocator.name)
                continue
            for key, histogram in parse(text).items():
                histograms[allocator.name].setdefault(key, Counter()).update(histogram)
    return histograms, failed


def merged(histograms: dict[tuple[str, str], Counter], call: str, kinds: tuple[str, ...]) -> Counter:
    """The calls of several kinds in one histogram."""
    return sum((histograms.get((call, kind), Counter()) for kind in kinds), Counter())


def show(nanoseconds: int | None) -> str:
    """Nanoseconds, or a sign that there are too few calls."""
    return "-" if nanoseconds is None else f"{nanoseconds:,}"


def table(call: str, histograms: dict[str, dict[tuple[str, str], Counter]]) -> None:
    """Prints the percentiles of one call, all allocators under each kind."""
    lines = [[f"{call}, ns", "p50", "p99", "p99.9", "p99.99", "maximum", "calls"]]
    for title, kinds in ROWS.items():
        for name, own in histograms.items():
            histogram = merged(own, call, kinds)
            lines.append([f"{title}: {name}", *(show(percentile(histogram, part)) for part in PERCENTILES),
                          show(max(histogram) if histogram else None), f"{sum(histogram.values()):,}"])
    print()
    print_lines(lines)


def verdict(histograms: dict[str, dict[tuple[str, str], Counter]], base: str, judged: str) -> list[str]:
    """One line for each call: p99.99 with page faults against the base's."""
    lines = []
    for call in ("malloc", "free"):
        own, other = (percentile(merged(histograms[name], call, ROWS["all"]), JUDGED) for name in (judged, base))
        if own is None or other is None:
            lines.append(f"verdict: {call} p99.99 of {judged}: too few calls")
        else:
            kept = "within" if own <= other else "OVER"
            lines.append(f"verdict: {call} p99.99 of {judged} {own:,} ns, of {base} {other:,} ns: {kept}")
    return lines


def write_csv(path, histograms):
    """Every class of every histogram."""
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(["allocator", "call", "kind", "nanoseconds", "calls"])
        for name, own in histograms.items():
            for (call, kind), histogram in own.items():
                writer.writerows([name, call, kind, nanoseconds, histogram[nanoseconds]] for nanoseconds in sorted(histogram))


def main():
    """Returns the exit status."""
    options = parse_arguments()
    check_build(options)
    chosen, base = choose_allocators(options)
    print(f"{conditions(options)}; two threads, all rounds in one histogram, in classes of 1/16 of a power of two", flush=True)
    try:
        histograms, failed = measure(options, chosen)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    histograms = {name: own for name, own in histograms.items() if name not in failed}
    for call in ("malloc", "free"):
        table(call, histograms)
    if base == BASE and {base, "bulkhead"} <= histograms.keys():
        print("", *verdict(histograms, base, "bulkhead"), sep="\n")
    if options.csv:
        write_csv(options.csv, histograms)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
