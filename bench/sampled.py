#!/usr/bin/env python3
"""What guarding one allocation in N costs: each benchmark program with it and without.

    sampled.py LIBRARY [--build DIR] [--rate N] [--rows NAMES] [--counts N] [--rounds N] [--scale S]

Instructions are counted by callgrind, of two runs of different length, so that start and
end of the process cancel; --counts times, each with another seed. Times are those of
--rounds rounds, in each of which both run one after the other in a random order: the
geometric mean of the ratios, and the interval that has the true one with a probability of
95 % (percentiles of 10,000 resamples). 0 leaves one of the two out. Prints Markdown.
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
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(arguments.programs / program), *words, repr(scale)]
    extra = environment(rate, seed)
    run = subprocess.run(command, env=clean_environment(LD_BIND_NOW="1", LD_PRELOAD=arguments.library, **extra),
                         capture_output=True, text=True, errors="replace", check=False, timeout=arguments.timeout)
    found = re.search(r"Collected : (\d+)$", run.stderr, re.MULTILINE)
    if run.returncode != 0 or not found:
        raise Failure("%s: %s" % (row.name, " | ".join(run.stderr.strip().splitlines()[-3:])))
    return int(found.group(1))


def counted(row, arguments):
    """The share of instructions that the rate adds, of each count, in percent."""
    shares = []
    for seed in range(1, arguments.counts + 1):
        without, with_it = (count(row, arguments, rate, seed, LONG) - count(row, arguments, rate, seed, SHORT) for rate in (0, arguments.rate))
        shares.append(100 * (with_it / without - 1))
    return shares


def timed(row, arguments, folder):
    """Ratios of wall times and of processor times, of each round."""
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


def interval(logs):
    """The geometric mean with its interval."""
    means = sorted(statistics.fmean(random.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    ends = (means[int(RESAMPLES * part)] for part in (0.025, 0.975))
    return "%.3f, %s" % (math.exp(statistics.fmean(logs)), " to ".join("%.3f" % math.exp(end) for end in ends))


def shares_cell(shares):
    """The median, and the least and the most: which pages a process gets differs from run to run."""
    return "%.2f, %.2f to %.2f" % (statistics.median(shares), min(shares), max(shares))


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
    print("| | instructions more, %, least to most | wall time, interval | processor time, interval |\n|---|---|---|---|", flush=True)
    failed = False
    with tempfile.TemporaryDirectory(prefix="bulkhead-sampled.") as folder:
        for row in rows:
            try:
                shares = shares_cell(counted(row, arguments)) if arguments.counts else ""
                times = " | ".join(map(interval, timed(row, arguments, Path(folder)))) if arguments.rounds else " | "
            except (Failure, subprocess.TimeoutExpired) as failure:
                print("sampled.py: %s" % failure, file=sys.stderr)
                failed = True
                continue
            print("| `%s` | %s | %s |" % (row.name, shares, times), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
