#!/usr/bin/env python3
"""Runs the attack table against allocators and prints the matrix: what each does
about each heap bug. tests/attack/table/table.h says what the program tells."""

import argparse
import csv
import hashlib
import os
import platform
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import allocators  # noqa: E402
from launch import clean_environment  # noqa: E402

PROFILES = ("secure", "hardened")
PEERS = list(allocators.PEERS)
# From best to worst; a row shows the worst that happened.
VERDICTS = ("NOT HERE", "DETECTED", "FAULT", "DEFUSED", "CRASH", "MISSED", "ERROR")
LEGEND = """\
DETECTED  the allocator ended the process by itself (SIGABRT, SIGILL, SIGTRAP)
FAULT     SIGSEGV at the address where the row expects a guard
DEFUSED   the process went on, and the effect that the row states is absent
CRASH     SIGSEGV elsewhere: the allocator stumbled over the damage
MISSED    the effect was reached
ERROR     ended before the bug, hung, or ended in some other way
NOT HERE  the row cannot be tried here
1 in N    how often the effect was seen, for rows that state a probability
k/n       of n attacks, all sizes, threads and runs, k ended so and the others better
!         falls short of Bulkhead's promise        ~  promised, but not built yet"""
MATRIX_BEGIN, MATRIX_END = "<!-- matrix: written by bulkhead attack --markdown -->", "<!-- end of the matrix -->"
EXIT_VERDICTS = {42: "DEFUSED", 43: "MISSED", 44: "NOT HERE"}
STOPS = (signal.SIGABRT, signal.SIGILL, signal.SIGTRAP)
FAULTS = (signal.SIGSEGV, signal.SIGBUS)
REPORT = re.compile(rb"bulkhead: ERROR: ([a-z-]+): ")


def say(text):
    """A line about the run, beside the table."""
    print(f"attack: {text}", file=sys.stderr, flush=True)


def die(text):
    """Ends because of wrong usage or a machine that lacks what is needed."""
    say(text)
    sys.exit(2)


# ------------------------------------------------------------------------- data

@dataclass(frozen=True)
class Promise:
    """What a profile promises for a row; without verdicts or a rate, nothing."""

    later: bool = False
    verdicts: dict = field(default_factory=dict)  # verdict: ids, or () for any
    rate: float | None = None

    @classmethod
    def parse(cls, text):
        """From a field of the program's list, such as "later FAULT DETECTED:id,id"."""
        parts = text.split()
        later = parts[0] == "later"
        verdicts, rate = {}, None
        for part in parts[1:] if later else parts:
            verdict, _, rest = part.partition(":")
            if verdict == "RARE":
                over, _, under = rest.partition("/")
                rate = int(over) / int(under)
            elif verdict in VERDICTS:
                verdicts[verdict] = tuple(filter(None, rest.split(",")))
            elif verdict != "none":
                die(f"the table has a promise that makes no sense: {text}")
        return cls(later, verdicts, rate)


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    group: str
    name: str
    sizes: tuple
    actors: tuple
    promises: dict  # by profile
    what: str


@dataclass(frozen=True)
class Subject:
    """An allocator with its settings; profile only for Bulkhead."""

    name: str
    library: str
    profile: str | None = None

    def environment(self):
        """What a program needs to run under it."""
        extra = {"LD_PRELOAD": self.library} if self.library else {}
        if self.profile:
            extra["BULKHEAD_PROFILE"] = self.profile
        return clean_environment(**extra)


@dataclass(frozen=True)
class End:
    """How one attack ended."""

    verdict: str
    detail: str = ""  # id, signal, or why it is an error
    hits: int = 0
    trials: int = 0


# -------------------------------------------------------------------- one attack

def judge(status, told, complaint, is_bulkhead):
    """The End of a process from its status, its standard output and error."""
    expected, fault, tally, marked = (0, 0), None, (0, 0), False
    for line in told.decode(errors="replace").splitlines():
        word, *numbers = line.split()
        if word == "marker":
            marked = True
        elif word == "expect":
            expected = tuple(int(n, 0) for n in numbers)
        elif word == "fault":
            fault = int(numbers[0], 0)
        elif word == "tally":
            tally = tuple(int(n, 0) for n in numbers)
    said = complaint.decode(errors="replace").strip().splitlines()
    if status == 44:
        return End("NOT HERE")
    if not marked:
        return End("ERROR", f"ended before the marker, status {status}: {said[-1] if said else 'no message'}")
    if -status in STOPS:
        ids = REPORT.findall(complaint)
        if is_bulkhead and len(ids) != 1:
            return End("ERROR", f"{len(ids)} reports before {signal.Signals(-status).name}")
        return End("DETECTED", ids[0].decode() if is_bulkhead else signal.Signals(-status).name)
    if -status in FAULTS:
        if fault is not None and expected[0] <= fault < expected[1]:
            return End("FAULT")
        return End("CRASH", f"at {fault:#x}" if fault is not None else "unknown address")
    if status in EXIT_VERDICTS:
        return End(EXIT_VERDICTS[status], "", *tally)
    if -status in (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL):
        return End("ERROR", "hangs")
    return End("ERROR", f"status {status}: {said[-1] if said else 'no message'}")


def attack(program, subject, row, size, actor, seed, timeout):
    """Runs one attack."""
    try:
        run = subprocess.run([program, "run", row, size, actor, str(seed)], env=subject.environment(), stdin=subprocess.DEVNULL,
                             capture_output=True, timeout=timeout, check=False, close_fds=False)
    except subprocess.TimeoutExpired:
        return End("ERROR", "hangs")
    return judge(run.returncode, run.stdout, run.stderr, subject.profile is not None)


def seed_of(base, *what):
    """A seed for one attack, which repeats with the base."""
    digest = hashlib.blake2b("/".join(map(str, (base, *what))).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def attack_cell(job):
    """All runs of one row, size and actor under one allocator, with their seeds."""
    program, subject, row, size, actor, runs, base, timeout = job
    seeds = [seed_of(base, row, size, actor, n) for n in range(runs)]
    return [(seed, attack(program, subject, row, size, actor, seed, timeout)) for seed in seeds]


# ----------------------------------------------------------------------- results

def keeps(promise, end):
    """Whether one end is among those promised. Rates are judged by the row."""
    if end.verdict in ("NOT HERE",):
        return True
    if end.verdict == "ERROR":
        return False
    if not promise.verdicts:
        return promise.rate is None or end.verdict in ("DEFUSED", "MISSED")
    ids = promise.verdicts.get(end.verdict)
    return ids is not None and (not ids or end.detail in ids)


def keeps_rate(promise, hits, trials):
    """Whether hits of trials are believable where the rate is a bound: not more
    than four standard deviations above it."""
    if promise.rate is None or trials == 0:
        return True
    mean = trials * promise.rate
    return hits <= mean + 4 * (mean * (1 - promise.rate)) ** 0.5 + 1


@dataclass
class Result:
    """What happened in one row under one allocator."""

    subject: Subject
    row: Row
    ends: Counter = field(default_factory=Counter)
    hits: int = 0
    trials: int = 0
    short: list = field(default_factory=list)  # what fell short, as lines
    cells: list = field(default_factory=list)  # (size, actor, Counter, hits, trials)

    @property
    def promise(self):
        """Bulkhead's promise for the row; nobody else has made one."""
        return self.row.promises.get(self.subject.profile) if self.subject.profile else None

    def add(self, size, actor, outcomes):
        """Counts the ends of one cell."""
        ends = Counter((end.verdict, end.detail) for _, end in outcomes)
        hits, trials = sum(end.hits for _, end in outcomes), sum(end.trials for _, end in outcomes)
        self.cells.append((size, actor, ends, hits, trials))
        self.hits += hits
        self.trials += trials
        self.ends.update(end.verdict for _, end in outcomes)
        if self.promise is None:
            return
        for seed, end in outcomes:
            if not keeps(self.promise, end):
                self.short.append(f"{end.verdict} {end.detail}".strip() + f": run {self.row.name} {size} {actor} {seed}")
        if not keeps_rate(self.promise, hits, trials):
            self.short.append(f"{hits} of {trials}: run {self.row.name} {size} {actor}")

    def mark(self):
        """"!" for a broken promise, "~" for one that is not insisted on yet."""
        return "" if not self.short else "~" if self.promise.later else "!"

    def text(self):
        """The row's place in the matrix."""
        total = sum(self.ends.values())
        worst = max(self.ends, key=VERDICTS.index)
        if self.trials > 0 and worst in ("DEFUSED", "MISSED"):
            seen = "never" if self.hits == 0 else f"1 in {self.trials / self.hits:.3g}"
            return self.mark() + seen
        share = "" if self.ends[worst] == total else f" {self.ends[worst]}/{total}"
        return f"{self.mark()}{worst}{share}"


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


# ------------------------------------------------------------------------ output

def print_matrix(rows, subjects, results):
    """Rows and allocators as plain text."""
    width = max(len(row.name) for row in rows) + 2
    columns = {s.name: max(len(s.name), *(len(results[r.name, s.name].text()) for r in rows)) + 2 for s in subjects}
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            print(("" if group == rows[0].group else "\n") + group.upper())
            print(" " * width + "".join(f"{s.name:<{columns[s.name]}}" for s in subjects).rstrip())
        cells = "".join(f"{results[row.name, s.name].text():<{columns[s.name]}}" for s in subjects)
        print(f"{row.name:<{width}}{cells}".rstrip())
    print("\n" + LEGEND)


def version_of(subject):
    """What is known of the library's version."""
    if subject.profile:
        return "this tree"
    if subject.name == "glibc":
        return platform.libc_ver()[1]
    package = allocators.PEERS.get(subject.name, ("",))[0]
    if package:
        asked = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=False)
        return f"{package} {asked.stdout}" if asked.returncode == 0 and asked.stdout else package
    return subject.library


def write_markdown(path, rows, subjects, results, options):
    """The same as tables; between the two lines that name the matrix, if the file
    is a page that has them."""
    before, after = "", ""
    if Path(path).exists():
        page = Path(path).read_text(encoding="utf-8")
        if page.count(MATRIX_BEGIN) == 1 and page.count(MATRIX_END) == 1:
            before, after = page.split(MATRIX_BEGIN)[0], page.split(MATRIX_END)[1]
    lines = [MATRIX_BEGIN, f"{options.runs} runs of each size and thread, seed {options.seed}, Linux {platform.release().split('-')[0]},"
             f" {platform.machine()}.", "", "| allocator | version |", "|---|---|"]
    lines += [f"| {s.name} | {version_of(s)} |" for s in subjects]
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", f"### {group[0].upper()}{group[1:]}", "", f"| row | bug; effect | {' | '.join(s.name for s in subjects)} |",
                      "|---|---|" + "---|" * len(subjects)]
        cells = " | ".join(results[row.name, s.name].text() for s in subjects)
        lines.append(f"| `{row.name}` | {row.what} | {cells} |")
    Path(path).write_text(before + "\n".join([*lines, "", MATRIX_END]) + (after or "\n"), encoding="utf-8")


def write_csv(path, rows, subjects, results):
    """One line for each row, allocator, size, actor and way to end."""
    with open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["group", "row", "allocator", "size", "actor", "verdict", "detail", "count", "hits", "trials", "row_mark"])
        for row in rows:
            for subject in subjects:
                result = results[row.name, subject.name]
                for size, actor, ends, hits, trials in result.cells:
                    for (verdict, detail), count in sorted(ends.items()):
                        writer.writerow([row.group, row.name, subject.name, size, actor, verdict, detail, count, hits, trials, result.mark()])


def complain(rows, subjects, results, options):
    """Says what fell short of Bulkhead's promises; returns how many rows did."""
    broken = [results[r.name, s.name] for r in rows for s in subjects if results[r.name, s.name].mark() == "!"]
    for result in broken:
        say(f"{result.subject.name}: {result.row.name} falls short {len(result.short)} times")
        for line in result.short[:options.show]:
            say(f"    {line}")
    later = [f"{s.name}: {r.name}" for r in rows for s in subjects if results[r.name, s.name].mark() == "~"]
    if later:
        say(f"{len(later)} rows fall short of what is promised for later: {', '.join(later)}")
    return len(broken)


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
        group, name, sizes, actors, secure, hardened, what = line.split("\t")
        if pattern.search(name):
            promises = {"secure": Promise.parse(secure), "hardened": Promise.parse(hardened)}
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


def main():
    """Runs the table; 1 if Bulkhead falls short of a promise."""
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
