#!/usr/bin/env python3
"""That the attack table can fail.

    selftest.py ATTACK.PY BUILD PROGRAM

The system's allocator must miss what it is known to miss. Programs that are not
what the runner takes them for must end as ERROR, or fall short of a promise."""

import csv
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

RUNNER, BUILD, PROGRAM = sys.argv[1:4]
failures = []

# Rows in which no version of the system's allocator stops anything, and one that it does.
MISSED = ["free-stack", "house-of-spirit", "fastbin-dup", "usable-size-freed", "over-1-unfreed", "walk-up", "walk-down", "large-end",
          "empty-write", "stale-read-large", "stale-write-huge", "stale-write-middle", "order-ascends", "secret-large", "delete-size-above",
          "house-of-einherjar", "unsorted-leak"]
DETECTED = ["double-free-empty"]
REPORT = "bulkhead: ERROR: %s: a text (address 0x0)"


def expect(what, condition, text=""):
    """Counts a check that failed."""
    if not condition:
        failures.append(what)
        print(f"FAIL {what}\n{text}")


def run(folder, *arguments, program=PROGRAM):
    """The runner's exit status, text, and how often each row ended how."""
    table = Path(folder) / "cells.csv"
    table.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, RUNNER, "--build", BUILD, "--program", str(program), "--csv", str(table), *arguments],
                          capture_output=True, text=True, check=False)
    rows = defaultdict(lambda: defaultdict(int))
    if table.exists():
        with open(table, encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                rows[line["row"]][line["verdict"]] += int(line["count"])
    return done.returncode, done.stdout + done.stderr, rows


def glibc(folder):
    """The rows that say most about the table's teeth."""
    status, text, rows = run(folder, "--allocator", "glibc", "--runs", "2", "--row", f"^({'|'.join(MISSED + DETECTED)})$")
    expect("glibc makes no promise, so nothing falls short", status == 0, text)
    for name in MISSED:
        ends = dict(rows[name])
        expect(f"glibc misses {name}", ends.get("MISSED", 0) > 0 or set(ends) == {"NOT HERE"}, str(ends))
    for name in DETECTED:
        expect(f"glibc detects {name}", set(rows[name]) == {"DETECTED"}, str(dict(rows[name])))


def fake(folder, body, secure="DETECTED:double-free"):
    """A program with one row that runs body."""
    path = Path(folder) / "fake"
    path.write_text(f"""#!/bin/sh
if [ "$1" = list ]; then
    printf 'group\\trow\\t64\\tlocal\\t{secure}\\tnone\\twhat\\n'
    exit 0
fi
{body}
""", encoding="utf-8")
    path.chmod(0o755)
    return path


def fakes(folder):
    """(what, body, promise, verdict, exit status) of programs that only pretend."""
    abort = "kill -ABRT $$"
    say = f"echo '{REPORT % 'double-free'}' >&2"
    cases = [
        ("a stop before the marker", f"{say}; {abort}", "DETECTED", "ERROR", 1),
        ("an end before the marker", "exit 42", "DEFUSED", "ERROR", 1),
        ("an end before the marker of a row without promise", "exit 3", "none", "ERROR", 1),
        ("the promised report", f"echo marker; {say}; {abort}", "DETECTED:double-free", "DETECTED", 0),
        ("a report of something else", f"echo marker; {say}; {abort}", "DETECTED:invalid-free", "DETECTED", 1),
        ("a stop without a report", f"echo marker; {abort}", "DETECTED:double-free", "ERROR", 1),
        ("two reports", f"echo marker; {say}; {say}; {abort}", "DETECTED:double-free", "ERROR", 1),
        ("a report and no stop", f"echo marker; {say}; exit 0", "DETECTED:double-free", "ERROR", 1),
        ("a fault in the guard", "echo marker; echo expect 0x1000 0x2000; echo fault 0x1fff; kill -SEGV $$", "FAULT", "FAULT", 0),
        ("a fault behind the guard", "echo marker; echo expect 0x1000 0x2000; echo fault 0x2000; kill -SEGV $$", "FAULT", "CRASH", 1),
        ("a fault that was expected no more", "echo marker; echo expect 0x1 0x9; echo expect 0 0; echo fault 0x5; kill -SEGV $$", "FAULT", "CRASH", 1),
        ("a fault at no address", "echo marker; echo expect 0x1000 0x2000; kill -SEGV $$", "FAULT", "CRASH", 1),
        ("an effect", "echo marker; exit 43", "DEFUSED", "MISSED", 1),
        ("an effect promised away for later", "echo marker; exit 43", "later DEFUSED", "MISSED", 0),
        ("an effect without promise", "echo marker; exit 43", "none", "MISSED", 0),
        ("no effect", "echo marker; exit 42", "DEFUSED", "DEFUSED", 0),
        ("a rate within its bound", "echo marker; echo tally 0xa 0x64; exit 42", "RARE:1/8", "DEFUSED", 0),
        ("a rate above its bound", "echo marker; echo tally 0x50 0x64; exit 42", "RARE:1/8", "DEFUSED", 1),
        ("another signal", "echo marker; kill -TERM $$", "DETECTED", "ERROR", 1),
        ("a hang", "echo marker; exec sleep 30", "DEFUSED", "ERROR", 1),
    ]
    for what, body, promise, verdict, wanted in cases:
        path = fake(folder, body, promise)
        status, text, rows = run(folder, "--allocator", "bulkhead", "--profile", "secure", "--runs", "1", "--timeout", "2" if what == "a hang" else "20",
                                program=path)
        expect(f"{what} is {verdict}", dict(rows["row"]) == {verdict: 1}, f"{dict(rows['row'])}\n{text}")
        expect(f"{what} ends the runner with {wanted}", status == wanted, text)


def usage(folder):
    """Wrong usage is told apart from an attack that succeeds."""
    for arguments in (["--allocator", "nonsense"], ["--row", "no such row"], ["--row", "("], ["--runs", "0"]):
        status, text, _ = run(folder, *arguments)
        expect(f"{arguments} is refused", status == 2, text)
    status, text, _ = run(folder, program="/nonexistent")
    expect("a missing program is refused", status == 2, text)


with tempfile.TemporaryDirectory() as work:
    glibc(work)
    fakes(work)
    usage(work)
print(f"{len(failures)} failed")
sys.exit(1 if failures else 0)
