#!/usr/bin/env python3
"""Runs the attack table against allocators and prints the matrix: what each does
about each heap bug. tests/attack/table/table.h says what the program tells."""

import argparse
import os
import platform
import random
import re
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from attack_judge import Promise, Result, Row, Subject, attack_cell
from attack_report import complain, print_matrix, say, write_csv, write_markdown

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import allocators  # noqa: E402
from launch import clean_environment  # noqa: E402

PROFILES = ("secure", "hardened")
PEERS = list(allocators.PEERS)


def die(text):
    """Ends because of wrong usage or a machine that lacks what is needed."""
    say(text)
    sys.exit(2)


# ---------------------------------------------------------------------- choosing

def parse_arguments():
    """The options, as a namespace."""
    parser = argparse.ArgumentParser(prog="bulkhead attack", description="Commits heap bugs under each allocator and prints what became of them.")
    parser.add_argument("--allocator", action="append", metavar="PATH|NAME",
                        help=f"a library to preload, or of bulkhead, glibc, {', '.join(PEERS)}; may be repeated (default bulkhead and glibc)")
    parser.add_argument("--all", action="store_true", help="every allocator by name that is installed")
    parser.add_argument("--profile", action="append", choices=PROFILES, help="profiles of Bulkhead; may be repeated (default both)")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="attacks for each row, size and thread (default 10)")
    parser.add_argument("--row", default="", metavar="REGEX", help="only rows whose name has a match of REGEX")
    parser.add_argument("--csv", metavar="FILE", help="write how often each cell ended how to FILE")
    parser.add_argument("--markdown", metavar="FILE", help="write the matrix as Markdown to FILE, or into its place in the page FILE")
    parser.add_argument("--seed", type=int, help="repeat a run with the seed that it printed; the allocators' own chance stays")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="attacks at the same time (default: processors)")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS", help="for one attack, which ends itself after 20 (default 60)")
    parser.add_argument("--show", type=int, default=3, metavar="N", help="show N failures of each row (default 3)")
    parser.add_argument("--build", default=str(ROOT / "build"), metavar="DIR", help="the build folder (default build)")
    parser.add_argument("--program", metavar="FILE", help="the attacking program (default: the build's)")
    parser.add_argument("--list", action="store_true", help="name the rows and promises, run nothing")
    options = parser.parse_args()
    if min(options.runs, options.jobs) < 1 or options.timeout <= 0:
        parser.error("--runs, --jobs and --timeout must be above 0")
    options.program = Path(options.program or Path(options.build) / "tests/attack/table/bulkhead-attack-table").resolve()
    options.seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    return options


def read_rows(options):
    """The rows that were asked for, from the program's own list."""
    try:
        pattern = re.compile(options.row)
        listed = subprocess.run([options.program, "list"], env=clean_environment(), capture_output=True, text=True, check=True).stdout
    except re.error as error:
        die(f"--row: {error}")
    except (OSError, subprocess.CalledProcessError) as error:
        die(f"the attacking program does not run: {error}")
    rows = []
    for line in listed.splitlines():
        try:
            group, name, sizes, actors, secure, hardened, what = line.split("\t")
            promises = {"secure": Promise.parse(secure), "hardened": Promise.parse(hardened)}
        except ValueError as error:
            die(f"the attacking program's list makes no sense: {error}")
        if pattern.search(name):
            rows.append(Row(group, name, tuple(sizes.split()), tuple(actors.split()), promises, what))
            if options.list:
                print(f"{name:<22}{secure:<50}{hardened:<40}{what}")
    if options.list:
        sys.exit(0)
    return rows or die("no row has such a name; see --list")


def refusal(subject):
    """What the library has against its profile, or ""."""
    run = subprocess.run(["true"], env=subject.environment(), capture_output=True, text=True, check=False)
    lines = [line for line in run.stderr.splitlines() if line.startswith("bulkhead: WARNING: option")]
    return lines[0] if lines else ""


def find_subjects(options):
    """The allocators that were asked for and can be loaded."""
    names = options.allocator or ["bulkhead", "glibc"]
    if options.all:
        names += [name for name in ["bulkhead", "glibc", *PEERS] if name not in names]
    subjects = []
    for name in names:
        if name in ("bulkhead", "glibc", *PEERS):
            found, why = allocators.find(name, ROOT, Path(options.build))
        else:
            path = Path(name).resolve()
            found, why = (allocators.Allocator(name, str(path)), "") if path.is_file() else (None, "no such library, and no known name")
        if found is None or not allocators.is_loaded(found):
            text = f"{name}: {why or 'cannot be preloaded'}"
            if options.allocator and name in options.allocator or name == "bulkhead":
                die(text)
            say(f"left out: {text}")
        elif "libbulkhead" in Path(found.library).name:
            subjects += [Subject(f"{name if name == 'bulkhead' else 'bulkhead'}-{p}", found.library, p) for p in options.profile or PROFILES]
        else:
            subjects.append(Subject(Path(name).name, found.library if name != "glibc" else ""))
    for subject in [s for s in subjects if s.profile]:
        said = refusal(subject)
        if said:
            say(f"left out: {subject.name}: the library says: {said}")
            subjects.remove(subject)
            if options.profile:
                sys.exit(2)
    if len({s.name for s in subjects}) != len(subjects):
        die("two allocators have the same name; compare two builds of one in two runs")
    return subjects or die("there is no allocator to attack")


def run_table(options, rows, subjects):
    """Results by row, then subject."""
    jobs, results = [], {}
    for row in rows:
        for subject in subjects:
            results[row.name, subject.name] = Result(subject, row)
            for size in row.sizes:
                for actor in row.actors:
                    jobs.append((str(options.program), subject, row.name, size, actor, options.runs, options.seed, options.timeout))
    with ProcessPoolExecutor(options.jobs) as pool:
        for job, outcomes in zip(jobs, pool.map(attack_cell, jobs, chunksize=4)):
            _, subject, row, size, actor, *_ = job
            results[row, subject.name].add(size, actor, outcomes)
    return results


def main():
    """Runs the table; 1 if Bulkhead falls short of a promise."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    options = parse_arguments()
    rows = read_rows(options)
    subjects = find_subjects(options)
    attacks = sum(len(r.sizes) * len(r.actors) for r in rows) * options.runs
    say(f"{len(rows)} rows, {attacks} attacks on each of {', '.join(s.name for s in subjects)}; seed {options.seed}; Linux {platform.release()}")
    results = run_table(options, rows, subjects)
    print_matrix(rows, subjects, results)
    if options.csv:
        write_csv(options.csv, rows, subjects, results)
    if options.markdown:
        write_markdown(options.markdown, rows, subjects, results, options)
    sys.exit(1 if complain(rows, subjects, results, options) else 0)


if __name__ == "__main__":
    main()
