#!/usr/bin/env python3
"""Compares allocators: every row of the benchmark under each of them, by turns,
as ratios to a base. See README.md beside this file."""

import argparse
import csv
import os
import random
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import allocators
from choose import ROOT, add_common, check_build, choose_allocators, conditions, die, parse_common, say
from launch import Context, Failure
from plot import why_not, write_plot
from report import Results, report
from rows import all_rows
from verdict import verdict


def parse_arguments():
    """The options, as a namespace."""
    parser = argparse.ArgumentParser(prog="bulkhead bench", description="Compares allocators; ratios to a base, smaller is better.")
    add_common(parser, 7, allocators.USUAL)
    parser.add_argument("--set", choices=["suite", "loops", "all"], default="all", help="which rows (default all)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name has a match of REGEX")
    parser.add_argument("--processor", action="store_true", help="processor time instead of wall time, for a busy machine")
    parser.add_argument("--csv", metavar="FILE", help="write every single measurement to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw the ratios of time to FILE, .svg, .png or .pdf; takes gnuplot")
    parser.add_argument("--list", action="store_true", help="name the rows and allocators, run nothing")
    options = parse_common(parser)
    if options.plot and why_not(options.plot):
        die(f"--plot: {why_not(options.plot)}")
    return options


# ---------------------------------------------------------------------- choosing

def choose_rows(options):
    """The rows that were asked for and can run here."""
    try:
        pattern = re.compile(options.rows)
    except re.error as error:
        die(f"--rows: {error}")
    chosen = [row for row in all_rows() if options.set in (row.group, "all") and pattern.search(row.name)]
    if not chosen:
        die("no row has such a name; see --list")
    usable = []
    for row in chosen:
        lacking = row.missing()
        if lacking:
            say(f"row {row.name} left out: needs {lacking}")
        else:
            usable.append(row)
    return usable or die("no row can run here")


def list_all(options):
    """What --list prints."""
    for row in all_rows():
        lacking = row.missing()
        print(f"{row.group:6} {row.name}" + (f" (needs {lacking})" if lacking else ""))
    for name in allocators.NAMES:
        found, why = allocators.find(name, ROOT, Path(options.build))
        print(f"{'':6} {name}: {found.library if found else why}")


# --------------------------------------------------------------------- measuring

class Progress:
    """One line on a terminal that says what runs now."""

    def __init__(self):
        self.shown = sys.stderr.isatty()

    def show(self, text):
        if self.shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


class Run:
    """A run over all rounds, rows and allocators."""

    def __init__(self, options, rows, chosen):
        self.options = options
        self.rows = rows
        self.allocators = chosen
        self.seed = options.seed
        self.order = random.Random(self.seed)
        self.results = Results()
        self.progress = Progress()

    def all_rounds(self, record):
        """Measures; `record` gets each sample as a tuple. An interrupt ends it early."""
        try:
            for number in range(1, self.options.rounds + 1):
                for row in self.rows:
                    self.one_row(row, number, record)
        except KeyboardInterrupt:
            say(f"interrupted in round {number}")
            return False
        finally:
            self.progress.show("")
        return True

    def one_row(self, row, number, record):
        """One row of one round, under all allocators in an order of its own."""
        turn = self.order.sample(self.allocators, len(self.allocators))
        with tempfile.TemporaryDirectory(prefix="bulkhead-bench-") as folder:
            for position, allocator in enumerate(turn):
                self.progress.show(f"round {number}/{self.options.rounds} {row.name} {allocator.name}")
                # A folder each, so that nobody finds what another left.
                place = Path(folder) / str(position)
                place.mkdir()
                context = Context(Path(self.options.build) / "bench", place, self.options.scale, self.seed + number, self.options.timeout)
                try:
                    row.prepare(context)
                    sample = row.run(replace(context, environment=allocator.environment), allocator.library)
                except Failure as failure:
                    self.fail(row, allocator, context, failure)
                    continue
                finally:
                    shutil.rmtree(place, ignore_errors=True)
                self.results.add(row.name, allocator.name, number, sample)
                record((number, context.seed, row.group, row.name, allocator.name, position, sample.seconds, sample.processor, sample.peak_kib))

    def fail(self, row, allocator, context, failure):
        """An error, and no number for this row and allocator."""
        self.progress.show("")
        say(f"ERROR: {allocator.name} in row {row.name} with BENCH_SEED={context.seed}: {failure}")
        self.results.failures.add((row.name, allocator.name))


def measure(run, path):
    """Runs it all, with the samples written to the CSV file `path` if there is one."""
    if not path:
        return run.all_rounds(lambda sample: None)
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(["round", "seed", "set", "row", "allocator", "position", "seconds", "processor_seconds", "peak_kib"])

        def record(sample):
            writer.writerow(sample)
            file.flush()

        return run.all_rounds(record)


def by_group(rows):
    """The names of the rows of each group that has some."""
    groups = {group: [row.name for row in rows if row.group == group] for group in ("suite", "loops")}
    return {group: names for group, names in groups.items() if names}


def show(options, results, rows, names, base):
    """The tables, the verdict and the plot."""
    groups = by_group(rows)
    time = (lambda sample: sample.processor) if options.processor else (lambda sample: sample.seconds)
    report(results, groups, names, base, options.processor)
    lines = verdict(results, groups, by_group(all_rows()), [name for name in names if name != base], base, time)
    if lines:
        print("", *lines, sep="\n")
    if options.plot:
        title = f"{'processor' if options.processor else 'wall'} time / {base}: medians and quartiles of {options.rounds} rounds"
        write_plot(options.plot, results, [row.name for row in rows], [name for name in names if name != base], base, time, title)


def main():
    """Returns the exit status."""
    options = parse_arguments()
    if options.list:
        list_all(options)
        return 0
    check_build(options)
    rows = choose_rows(options)
    chosen, base = choose_allocators(options)
    run = Run(options, rows, chosen)
    print(f"{conditions(options)}; each cell: median of ratios, quartiles", flush=True)
    complete = measure(run, options.csv)
    show(options, run.results, rows, [allocator.name for allocator in chosen], base)
    if not complete:
        return 130
    return 1 if run.results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
