"""One attack of the attack table, how it ended, and whether that keeps a promise."""

import hashlib
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
from launch import clean_environment  # noqa: E402

# From best to worst; a row shows the worst that happened.
VERDICTS = ("NOT HERE", "DETECTED", "FAULT", "DEFUSED", "CRASH", "MISSED", "ERROR")
EXIT_VERDICTS = {42: "DEFUSED", 43: "MISSED", 44: "NOT HERE"}
STOPS = (signal.SIGABRT, signal.SIGILL, signal.SIGTRAP)
FAULTS = (signal.SIGSEGV, signal.SIGBUS)
REPORT = re.compile(rb"bulkhead: ERROR: ([a-z-]+): ")


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
                raise ValueError(f"the table has a promise that makes no sense: {text}")
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
    if -status in (signal.SIGALRM, signal.SIGVTALRM):
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
