#!/usr/bin/env python3
"""Whole programs with every allocation guarded, beside other tools that catch heap bugs.

    guarded.py LIBRARY [--rows NAMES] [--tools NAMES] [--scale S] [--rounds N]

Each row runs once in each round with glibc's malloc, with LIBRARY at rate 1 (stacks of
each allocation and free by the unwinder, by frame pointers, and none), with AFL++'s libdislocator,
under Valgrind's memcheck, and, where the program can be built with it, with
AddressSanitizer. Processor time, which other work on the machine disturbs least, and
peak memory as ratios to glibc's; and the most mappings that the process had. A cell is
the median of the rounds, or why there is none.

Rows of bench/whole run with a smaller amount of work than in the suite.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from launch import Context, Failure, Sample  # noqa: E402
from rows import Whole  # noqa: E402

DISLOCATOR = ["/usr/lib/afl/libdislocator.so", "/usr/local/lib/afl/libdislocator.so"]
MEMCHECK = ["valgrind", "-q", "--trace-children=yes", "--leak-check=no", "--child-silent-after-fork=yes"]
LOOK_SECONDS = 0.02  # between two counts of mappings
FLAGS = ["-O2", "-g", "-D_GNU_SOURCE", "-pthread", *("-fno-builtin-" + name for name in ("malloc", "calloc", "realloc", "free"))]
TEST_MODULES = ["test_list", "test_struct"]


@dataclasses.dataclass(frozen=True)
class Tool:
    """What a program is run under."""

    name: str
    library: str = ""
    environment: dict = dataclasses.field(default_factory=dict)
    prefix: tuple = ()
    sanitized: bool = False  # the program is another build


class Watched(Context):
    """Starts programs under a tool and counts their mappings. Clients and the like, which
    ask for no library, run without it."""

    def start(self, command, library, **extra):
        tool = WATCH.tool
        if not library:
            return super().start(command, "", **extra)
        running = super().start([*tool.prefix, *command], tool.library, **tool.environment, **extra)
        threading.Thread(target=WATCH.look, args=(running.process,), daemon=True).start()
        return running


class Watch:
    """The tool of the moment, and the most mappings of what it ran."""

    tool = Tool("")
    mappings = 0

    def look(self, process):
        while process.poll() is None:
            for child in descendants(process.pid):
                try:
                    with open(f"/proc/{child}/maps", "rb") as maps:
                        self.mappings = max(self.mappings, maps.read().count(b"\n"))
                except OSError:
                    pass
            time.sleep(LOOK_SECONDS)


WATCH = Watch()


def descendants(pid):
    found = []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return found
    for child in children:
        found += [child, *descendants(child)]
    return found


# ------------------------------------------------------------------------------- rows


class Tests:
    """Python's own tests of some modules, every object from malloc."""

    name = "python-tests"

    def __init__(self):
        candidates = [os.path.join(folder, "python3") for folder in os.environ.get("PATH", "").split(":")]
        self.python = next((p for p in candidates if os.access(p, os.X_OK) and self.has_tests(p)), None)

    @staticmethod
    def has_tests(python):
        done = subprocess.run([python, "-c", "import test.test_json"], capture_output=True, check=False)
        return done.returncode == 0

    def missing(self):
        return None if self.python else "a python3 with its test modules (Debian: libpython3-testsuite)"

    def prepare(self, context):
        pass

    def run(self, context, library):
        return context.run([self.python, "-m", "test", "-q", *TEST_MODULES], library, PYTHONMALLOC="malloc", PYTHONHASHSEED="0")


class Clang(Whole):
    """clang in the place of gcc, one process."""

    def __init__(self):
        super().__init__("gcc")
        self.clang = shutil.which("clang") or shutil.which("clang-14")
        self.missing = lambda: None if self.clang else "clang"
        self.run = self.run_clang

    def run_clang(self, context, library):
        return context.run([self.clang, "-O2", "-c", "-o", "work.o", "work.c"], library)


class Own:
    """A program of bench/programs, which can be built with AddressSanitizer."""

    def __init__(self, name):
        self.name = name

    def missing(self):
        return None

    def prepare(self, context):
        source = HERE / "programs" / (self.name + ".c")
        for suffix, more in (("", []), (".asan", ["-fsanitize=address"])):
            subprocess.run(["gcc", *FLAGS, *more, "-o", str(context.folder / (self.name + suffix)), str(source), "-lm"], check=True)

    def run(self, context, library):
        suffix = ".asan" if WATCH.tool.sanitized else ""
        return context.run(["./" + self.name + suffix, repr(context.scale)], library)


# Name: the row, and its amount of work.
ROWS = {
    "python": (lambda: Whole("python"), 0.03),
    "python-tests": (Tests, 1.0),
    "sqlite": (lambda: Whole("sqlite"), 0.1),
    "clang": (Clang, 0.3),
    "redis": (lambda: Whole("redis"), 0.2),
    "glibc_simple": (lambda: Own("glibc_simple"), 0.01),
    "larson": (lambda: Own("larson"), 0.01),
}


def tools(library):
    rate = "profile=secure:guarded_sample_rate=1"
    quiet = {"ASAN_OPTIONS": "detect_leaks=0"}
    out = [Tool("glibc", "libc.so.6"), Tool("bulkhead", library, {"BULKHEAD_OPTIONS": rate}),
           Tool("bulkhead, stacks=fp", library, {"BULKHEAD_OPTIONS": rate + ":stacks=fp"}),
           Tool("bulkhead, stacks=none", library, {"BULKHEAD_OPTIONS": rate + ":stacks=none"})]
    dislocator = next((p for p in DISLOCATOR if os.path.exists(p)), None)
    if dislocator:
        out.append(Tool("libdislocator", dislocator, {"AFL_LD_LIMIT_MB": "65536"}))
    if shutil.which("valgrind"):
        out.append(Tool("memcheck", "", {}, tuple(MEMCHECK)))
    return out + [Tool("asan", "", quiet, (), True)]


def measure(row, tool, context):
    """A sample and the most mappings, or why not."""
    if tool.sanitized and not isinstance(row, Own):
        return None
    WATCH.tool, WATCH.mappings = tool, 0
    try:
        sample = row.run(context, "the tool's")
    except Failure as failure:
        return str(failure)[-150:]
    return sample, WATCH.mappings


def prepared(row, scale, programs, folder, seed, timeout):
    folder.mkdir()
    context = Watched(programs, folder, scale, seed, timeout)
    row.prepare(context)
    return context


def cell(results, base):
    good = [r for r in results if isinstance(r, tuple)]
    if len(good) != len(results) or not good:
        return "" if results[0] is None else "failed"
    samples: list[Sample] = [r[0] for r in good]
    processor = statistics.median(s.processor / b[0].processor for s, b in zip(samples, base))
    peak = statistics.median(s.peak_kib for s in samples)
    return "%.1f, %.0f MiB, %d" % (processor, peak / 1024, max(r[1] for r in good))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--tools", default="")
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual amount of work")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=300)
    arguments = parser.parse_args()
    chosen = [t for t in tools(os.path.realpath(arguments.library)) if not arguments.tools or t.name in ["glibc", *arguments.tools.split(",")]]
    print("times the processor time of glibc's malloc, peak memory, most mappings (limit: %s)"
          % Path("/proc/sys/vm/max_map_count").read_text(encoding="ascii").strip())
    print("| | glibc | " + " | ".join(t.name for t in chosen[1:]) + " |")
    print("|---|" + "---|" * len(chosen), flush=True)
    failures = []
    with tempfile.TemporaryDirectory(prefix="bulkhead-guarded.") as name:
        folder = Path(name)
        subprocess.run(["gcc", *FLAGS, "-o", str(folder / "measure"), str(HERE / "programs" / "measure.c")], check=True)
        for wanted in arguments.rows.split(","):
            make, scale = ROWS[wanted]
            row = make()
            if row.missing():
                print("| %s | needs %s |" % (wanted, row.missing()), flush=True)
                continue
            results = {t.name: [] for t in chosen}
            for n in range(arguments.rounds):
                context = prepared(row, scale * arguments.scale, folder, folder / ("%s-%d" % (wanted, n)), n + 1, arguments.timeout)
                for tool in chosen:
                    results[tool.name].append(measure(row, tool, context))
            failures += ["%s, %s: %s" % (wanted, t, r) for t, rs in results.items() for r in rs if isinstance(r, str)]
            base = results["glibc"]
            if not all(isinstance(b, tuple) for b in base):
                continue
            seconds, peak = (statistics.median(b[0].processor for b in base), statistics.median(b[0].peak_kib for b in base))
            print("| %s | %.2f s, %.0f MiB, %d | " % (wanted, seconds, peak / 1024, max(b[1] for b in base)) +
                  " | ".join(cell(results[t.name], base) for t in chosen[1:]) + " |", flush=True)
    for failure in dict.fromkeys(failures):
        print("failed: " + failure)
    sys.exit(any("bulkhead" in f.split(":")[0] for f in failures))


if __name__ == "__main__":
    main()
