#!/usr/bin/env python3
"""What guarding one allocation in N costs: each benchmark program with it and without.

    sampled.py LIBRARY [--build DIR] [--rate N] [--rows NAMES] [--counts N] [--rounds N] [--scale S]

Instructions are counted by callgrind, of two runs of different length, so that start and
end of the process cancel; --counts times, each with another seed. Times are those of
--rounds rounds, in each of which both run one after the other in a random order. 0 leaves
one of the two out. Each figure is a geometric mean of ratios, with the interval that has the
true one with a probability of 95 % (percentiles of 10,000 resamples of the counts or rounds
of each row); the last row has the mean of all others. Prints Markdown.

While they are counted, threads take turns of equal length: valgrind runs one at a time and
gives its turn to the next at a kernel call, of which a guarded block makes some, so that far
more blocks changed threads. And nothing is purged: the clock goes on while a program runs
fifty times slower, and how many empty pages it found then was most of what differed between
two counts.
"""

import argparse
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from launch import Context, Failure, clean_environment  # noqa: E402
from rows import Program, all_rows  # noqa: E402

LONG, SHORT = 0.105, 0.015  # of the usual work: some hundred thousands of allocations between the two
RESAMPLES = 10000
LEFT_OUT = ["large", "realloc_grow"]  # hardly any block is small enough


def environment(rate, seed):
    """What a program runs in."""
    return {"BULKHEAD_GUARDED_SAMPLE_RATE": str(rate), "BENCH_SEED": str(seed)}


def count(row, arguments, rate, seed, scale):
    """Instructions of one run."""
    program, *words = row.command
    command = ["valgrind", "--tool=callgrind", "--fair-sched=yes", "--callgrind-out-file=/dev/null", str(arguments.programs / program), *words, repr(scale)]
    extra = dict(environment(rate, seed), BENCH_TURNS="1", BULKHEAD_PURGE_DELAY="1000000")
    run = subprocess.run(command, env=clean_environment(LD_BIND_NOW="1", LD_PRELOAD=arguments.library, **extra),
                         capture_output=True, text=True, errors="replace", check=False, timeout=arguments.timeout)
    found = re.search(r"Collected : (\d+)$", run.stderr, re.MULTILINE)
    if run.returncode != 0 or not found:
        raise Failure("%s: %s" % (row.name, " | ".join(run.stderr.strip().splitlines()[-3:])))
    return int(found.group(1))


def counted(row, arguments):
    """The logarithms of the ratios of instructions, of each count."""
    ratios = []
    for seed in range(1, arguments.counts + 1):
        without, with_it = (count(row, arguments, rate, seed, LONG) - count(row, arguments, rate, seed, SHORT) for rate in (0, arguments.rate))
        ratios.append(math.log(with_it / without))
    return ratios


def timed(row, arguments, folder):
    """The logarithms of the ratios of wall times and of processor times, of each round."""
    wall, processor = [], []
    for seed in range(1, arguments.rounds + 1):
        samples = {}
        for rate in random.sample([0, arguments.rate], 2):
            context = Context(arguments.programs, folder, arguments.scale, seed, arguments.timeout, environment(rate, seed))
            context.environment.pop("BENCH_SEED")  # the context has it
            samples[rate] = row.run(context, arguments.library)
        wall.append(math.log(samples[arguments.rate].seconds / samples[0].seconds))
        processor.append(math.log(samples[arguments.rate].processor / max(samples[0].processor, 1e-6)))
    return wall, processor


def resampled(rows):
    """The mean over the rows of the means of resamples of each."""
    return statistics.fmean(statistics.fmean(random.choices(logs, k=len(logs))) for logs in rows)


def mean_of(rows):
    """The geometric mean over the rows, and its interval; of rows of logarithms."""
    means = sorted(resampled(rows) for _ in range(RESAMPLES))
    return [math.exp(x) for x in (resampled([[statistics.fmean(logs)] for logs in rows]), means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)])]


def percent_cell(rows):
    """Of instructions."""
    return "%.2f, %.2f to %.2f" % tuple(100 * (ratio - 1) for ratio in mean_of(rows)) if rows else ""


def ratio_cell(rows):
    """Of times."""
    return "%.3f, %.3f to %.3f" % tuple(mean_of(rows)) if rows else ""


def line(name, counts, walls, processors):
    """A line of the table; of a list of rows each."""
    print("| %s | %s | %s | %s |" % (name, percent_cell(counts), ratio_cell(walls), ratio_cell(processors)), flush=True)


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--build", default=str(HERE.parent / "build"), help="the build folder with bench/ in it (default build)")
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--rows", default="", help="names, by commas (default all of our own programs)")
    parser.add_argument("--counts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--scale", type=float, default=0.1, help="times the usual amount of work, for times")
    parser.add_argument("--timeout", type=float, default=300)
    arguments = parser.parse_args()
    arguments.library = str(Path(arguments.library).resolve())
    arguments.programs = Path(arguments.build).resolve() / "bench"
    if not (arguments.programs / "measure").is_file():
        parser.error("%s has no bench/measure: build with -DBULKHEAD_BENCH=ON" % arguments.build)
    return arguments


def main():
    """Returns the exit status."""
    arguments = parse()
    names = arguments.rows.split(",") if arguments.rows else []
    rows = [row for row in all_rows() if isinstance(row, Program) and (row.name in names if names else row.name not in LEFT_OUT)]
    print("| | instructions more, %, interval | wall time, interval | processor time, interval |\n|---|---|---|---|", flush=True)
    counts, walls, processors, failed = [], [], [], False
    with tempfile.TemporaryDirectory(prefix="bulkhead-sampled.") as folder:
        for row in rows:
            try:
                own = [counted(row, arguments)] if arguments.counts else []
                wall, processor = ([times] for times in timed(row, arguments, Path(folder))) if arguments.rounds else ([], [])
            except (Failure, subprocess.TimeoutExpired) as failure:
                print("sampled.py: %s" % failure, file=sys.stderr)
                failed = True
                continue
            line("`%s`" % row.name, own, wall, processor)
            counts, walls, processors = counts + own, walls + wall, processors + processor
    line("all of them", counts, walls, processors)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
