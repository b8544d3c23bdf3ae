"""The attack table's results for the reader: matrix, page, cells, complaints."""

import csv
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))
import allocators  # noqa: E402

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


def say(text):
    """A line about the run, beside the table."""
    print(f"attack: {text}", file=sys.stderr, flush=True)


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
    held = [f"{s.name}: {r.name}" for r in rows for s in subjects
            if (promise := results[r.name, s.name].promise) and promise.later and not results[r.name, s.name].short]
    if held:
        say(f"{len(held)} rows promised for later held this time: {', '.join(held)}")
    return len(broken)
