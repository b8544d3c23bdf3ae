#!/usr/bin/env python3
"""planted.py LIBRARY SYMBOLIZE: every bug of planted.c and planted.cc at rate 1, in C, C++
and stripped binaries, in three profiles. Of each report all is compared: violation,
signal, kind of access, distance, sizes, state, kinds, threads, and the three stacks, by
function and line after symbolize. Prints a table, and at last "N passed, M failed".

Stripped programs have their symbols in a file of their own that a debug link names
("linked"), or nowhere ("bare"): there module and offset must be right, and are looked up
in a copy that is not stripped.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FLAGS = ["-O2", "-g", "-fno-builtin", "-fno-optimize-sibling-calls", "-Wall", "-Wextra", "-Werror", "-pthread", "-Wl,--build-id"]
SECONDS = 60  # for one program; the slowest take two
DISTANCES = [1, 2, 7, 16, 64, 255, 1024, 4095, 4096]
PROFILES = {
    "debug": "profile=debug:guarded_sample_rate=1",
    # By default fuzz keeps 65,536 addresses out of use, fewer than come by in some rows.
    "fuzz": "profile=fuzz:stacks=unwind:mismatch=abort:guarded_slots=262144",
    "secure": "profile=secure:guarded_sample_rate=1:mismatch=abort",
}

# group: the line of the table. bug, distance, size: the program's arguments. fault: ends
# at a guard. offset: from the block's start. marks: those of access, allocation and free,
# each a mark of the source and the functions, innermost first; None: no such stack.
Bug = collections.namedtuple("Bug", "group bug distance size options id access fault offset state marks released threads")

# ------------------------------------------------------------------------------- bugs

C_STACKS = {
    "allocated": ("make_block", "main"),
    "freed": ("drop_block",),
    "read": ("read_at", "plant", "main"),
    "write": ("write_at", "plant", "main"),
    "freed again": ("drop_again",),
}
CXX_STACKS = {
    "allocated": ("shop::Shelf<char>::Shelf(unsigned long)", "main"),
    "freed": ("shop::Shelf<char>::clear() const",),
    "read": ("shop::Shelf<char>::read(long) const", "main"),
    "write": ("shop::Shelf<char>::write(long) const", "main"),
    "freed again": ("shop::Shelf<char>::clear_again() const",),
    "allocated singly": ("shop::single()", "main"),
    "allocated raw": ("shop::raw(unsigned long)", "main"),
    "deleted": ("shop::end_single(shop::Price*)", "main"),
    "freed raw": ("shop::end_raw(void*)", "main"),
}
PRICES = ("shop::Shelf<shop::Price>::Shelf(unsigned long)", "main")


def overruns(side, way, sizes, distances):
    over = way == "over"
    for distance in distances:
        for access in ("read", "write"):
            for size, more in sizes if distance in (1, 4096) else sizes[:1]:
                yield Bug("%sflow, %s" % (way, access), "%s-%s" % (way, access), distance, size, "guarded_side=%s%s" % (side, more),
                          "guard-%sflow" % way, access, True, size + distance - 1 if over else -distance, "live",
                          (access, "allocated", None), None, "same")


def late(way, side, distance, size):
    """Where no guard is: found at free, and who frees is only the finder."""
    offset = size + distance - 1 if way == "over" else -distance
    return Bug("%sflow without a guard, write" % way, "late-%s-write" % way, distance, size, "guarded_side=" + side, way + "flow", None,
               False, offset, "being freed", ("freed", "allocated", None), None, "same")


def freed(group, bug, access, options, threads):
    """After a free: an access 7 bytes inside, or a second free."""
    if access:
        return Bug(group + ", " + access, bug + "-" + access, 7, 160, options, "use-after-free", access, True, 7, "free",
                   (access, "allocated", "freed"), None, threads)
    return Bug(group, bug, 0, 160, options, "double-free", None, False, 0, "free", ("freed again", "allocated", "freed"), None, threads)


def bugs(slow, distances=DISTANCES):
    # Every size a multiple of 16, or precise: else up to 15 bytes lie before the guard.
    yield from overruns("end", "over", [(160, ""), (16, ""), (5008, ""), (131072, ""), (33, ":guarded_precise=1")], distances)
    yield from overruns("start", "under", [(160, ""), (16, ""), (33, ""), (5001, ""), (131072, "")], distances)
    for distance in (1, 16, 256):
        yield late("over", "start", distance, 160)
    for distance in (1, 16, 64):
        yield late("under", "end", distance, 160)
    yield late("over", "end", 1, 33)
    for access in ("read", "write"):
        yield freed("use after free", "after-now", access, "", "same")
        yield freed("use after free in another thread", "after-there", access, "", "freed there")
    yield freed("double free", "twice-now", None, "", "same")
    yield freed("double free, the first in another thread", "twice-there", None, "", "freed there")
    yield freed("double free, the second in another thread", "twice-elsewhere", None, "", "found there")
    if slow:
        yield freed("use after free, 100,000 allocations later", "after-others", "read", "", "same")
        yield freed("use after free, 100,000 allocations later", "after-others", "write", "", "same")
        yield freed("double free, 100,000 allocations later", "twice-others", None, "", "same")


def mismatches():
    for name, size, by, with_what, marks in (
            ("array-delete", 96, "new[]", "delete", ("deleted", "allocated", None)),
            ("malloc-delete", 48, "malloc", "delete", ("deleted", "allocated raw", None)),
            ("new-free", 48, "new", "free", ("freed raw", "allocated singly", None))):
        yield Bug("%s with %s" % (by, with_what), name, 0, size, "", "kind-mismatch", None, False, 0, "live", marks, (by, with_what), "same")


# --------------------------------------------------------------------------- programs


class Program:
    """One language in one form."""

    def __init__(self, language, form, path, twin, source):
        self.language, self.form, self.path, self.twin = language, form, path, twin
        text = source.read_text().splitlines()
        self.lines = {line.split("MARK ")[1].replace("*/", "").strip(): n for n, line in enumerate(text, 1) if "MARK " in line}

    def stack(self, bug, mark):
        if self.language == "C":
            return C_STACKS[mark]
        return PRICES if bug.bug == "array-delete" and mark == "allocated" else CXX_STACKS[mark]


def build(work, language, compiler, source, *more):
    whole = work / language / "planted"
    whole.parent.mkdir()
    subprocess.run([compiler, *FLAGS, *more, "-o", whole, source], check=True)
    out = [Program(language, "whole", whole, whole, source)]
    for form in ("linked", "bare"):
        path = work / (language + "-" + form) / "planted"
        path.parent.mkdir()
        shutil.copy(whole, path)
        debug = path.parent / "planted.debug"
        subprocess.run(["objcopy", "--only-keep-debug", path, debug], check=True)
        subprocess.run(["strip", path], check=True)
        if form == "linked":
            subprocess.run(["objcopy", "--add-gnu-debuglink=" + str(debug), path], check=True)
        else:
            debug.unlink()
        out.append(Program(language, form, path, path if form == "linked" else whole, source))
    return out


def run(library, program, profile, bug):
    options = ":".join(part for part in (PROFILES[profile], bug.options, "report=json") if part)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BULKHEAD_", "LD_PRELOAD"))}
    env.update(LD_PRELOAD=library, BULKHEAD_OPTIONS=options)
    done = subprocess.run([program.path, bug.bug, str(bug.distance), str(bug.size)], env=env, capture_output=True, check=False, timeout=SECONDS)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def symbolize(tool, program, reports):
    """Reports with names in their stacks, in the same order."""
    text = "".join(line + "\n" for line in reports).replace('"%s+0x' % program.path, '"%s+0x' % program.twin)
    done = subprocess.run([tool], input=text.encode(), stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


# ---------------------------------------------------------------------------- judging


def functions(report, key):
    return [f["function"] or "?" for frame in report.get(key, []) for f in frame["frames"]] if key in report else None


def wrong_stack(program, bug, report, key, mark):
    have = functions(report, key)
    if mark is None:
        return [] if have is None else ["%s: there is one: %s" % (key, have)]
    wanted = list(program.stack(bug, mark))
    if have is None:
        return [key + ": none"]
    rest, found = iter(have), have and have[0] == wanted[0]
    if not found or not all(name in rest for name in wanted):
        return ["%s: %s, wanted %s" % (key, have, wanted)]
    frame = report[key][0]["frames"][0]
    line = program.lines[mark]
    out = [] if frame["line"] == line else ["%s: line %s, wanted %d" % (key, frame["line"], line)]
    return out if report[key][0]["module"] == str(program.twin) else out + ["%s: module %s" % (key, report[key][0]["module"])]


def wrong_threads(bug, report, thread):
    main = report.get("alloc_thread")
    wanted = {"thread": thread}
    if bug.threads == "found there" and thread == main:
        return ["the last step was in the first thread"]
    if bug.threads != "found there":
        wanted["alloc_thread"] = thread
    if bug.state == "free" and bug.threads != "freed there":
        wanted["free_thread"] = main
    out = ["%s: %s, wanted %s" % (k, report.get(k), v) for k, v in wanted.items() if report.get(k) != v]
    if bug.threads == "freed there" and report.get("free_thread") in (None, main):
        out.append("free_thread: %s" % report.get("free_thread"))
    return out


def kind_of(program, bug):
    if bug.released:
        return bug.released[0]
    return "malloc" if program.language == "C" else "new[]"


def wrong(program, profile, bug, status, out, report):
    """What of a report is not as it must be."""
    told = re.fullmatch(r"last (0x[0-9a-f]+) (0x[0-9a-f]+) ([0-9]+)\n", out)
    if told is None:
        return ["it said %r" % out]
    wanted_signal = signal.SIGSEGV if bug.fault and profile != "fuzz" else signal.SIGABRT
    wanted = {"id": bug.id, "address": told[2], "block": told[1], "offset": bug.offset, "requested_size": bug.size, "usable_size": bug.size,
              "access": bug.access, "state": bug.state, "place": "guarded block", "allocated_by": kind_of(program, bug),
              "released_by": bug.released[1] if bug.released else None, "culprit": not bug.bug.startswith("late-")}
    problems = ["%s: %s, wanted %s" % (k, report.get(k), v) for k, v in wanted.items() if report.get(k) != v]
    if status != -wanted_signal:
        problems.append("status %d" % status)
    problems += wrong_threads(bug, report, int(told[3]))
    for key, mark in zip(("stack", "alloc_stack", "free_stack"), bug.marks):
        problems += wrong_stack(program, bug, report, key, mark)
    return problems


def plan(programs, everything):
    """(program, profile, bug): all profiles for whole programs, debug and fewer distances
    for stripped ones; what takes seconds not in all of them."""
    for program in programs:
        whole = program.form == "whole"
        for profile in PROFILES if whole else ["debug"]:
            slow = everything or whole and (program.language == "C" or profile == "debug")
            chosen = list(bugs(slow, DISTANCES if everything or whole else [1, 4096]))
            if program.language == "C++":
                chosen += mismatches()
            for bug in chosen:
                yield program, profile, bug


def judge(tool, tasks, results):
    """[(task, problems)]"""
    out, readable = [], collections.defaultdict(list)
    for task, result in zip(tasks, results):
        lines = [line for line in result[2].splitlines() if line.startswith('{"bulkhead"')]
        if len(lines) == 1:
            readable[id(task[0])].append((task, result, lines[0]))
        else:
            out.append((task, ["%d reports, status %d: %s" % (len(lines), result[0], result[2][:200])]))
    for known in readable.values():
        for (task, result, _), report in zip(known, symbolize(tool, known[0][0][0], [line for _, _, line in known])):
            out.append((task, wrong(*task, *result[:2], report)))
    return out


def table(judged):
    names = {"whole": "three profiles", "linked": "stripped, debug link", "bare": "stripped"}
    columns = ["%s, %s" % (language, name) for language in ("C", "C++") for name in names.values()]
    cells = collections.defaultdict(lambda: [0, 0])
    groups = []
    for (program, _, bug), problems in judged:
        cell = cells[bug.group, "%s, %s" % (program.language, names[program.form])]
        cell[0] += not problems
        cell[1] += 1
    for bug in list(bugs(True)) + list(mismatches()):
        if bug.group not in groups:
            groups.append(bug.group)
    print("| reported right, of planted | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for group in groups:
        print("| %s | %s |" % (group, " | ".join("%d of %d" % tuple(cells[group, c]) if (group, c) in cells else "" for c in columns)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library")
    parser.add_argument("symbolize")
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--cxx", default="g++")
    parser.add_argument("--all", action="store_true", help="also what is left out to save time")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    for tool in ("objcopy", "strip", arguments.cc, arguments.cxx):
        if not shutil.which(tool):
            print("planted: there is no " + tool)
            sys.exit(77)
    library = os.path.realpath(arguments.library)
    with tempfile.TemporaryDirectory(prefix="bulkhead-planted.") as folder:
        work = pathlib.Path(os.path.realpath(folder))
        programs = build(work, "C", arguments.cc, HERE / "planted.c") + build(work, "C++", arguments.cxx, HERE / "planted.cc", "-std=c++17")
        tasks = list(plan(programs, arguments.all))
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            results = list(pool.map(lambda task: run(library, *task), tasks))
        judged = judge(os.path.realpath(arguments.symbolize), tasks, results)
    table(judged)
    failed = 0
    for (program, profile, bug), problems in judged:
        if problems:
            failed += 1
            print("FAIL %s %s %s: %s %d %d: %s" % (program.language, program.form, profile, bug.bug, bug.distance, bug.size, "; ".join(problems)))
    print("%d passed, %d failed" % (len(judged) - failed, failed))
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
