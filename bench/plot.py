"""A plot of the table, by gnuplot: a mark for each row and allocator, with quartiles."""

import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from launch import Failure, Sample
from report import Results

TERMINALS = {".svg": "svg", ".png": "pngcairo", ".pdf": "pdfcairo"}
# Pixels; a PDF counts in inches.
WIDTH_OF_ROW, LEAST_WIDTH, HEIGHT, PIXELS_PER_INCH = 34, 640, 520, 72


def why_not(path: str) -> str | None:
    """Why nothing can be written to `path`, as far as can be told before the run."""
    if Path(path).suffix not in TERMINALS:
        return f"{path} must end in one of {', '.join(TERMINALS)}"
    if not Path(path).resolve().parent.is_dir():
        return f"there is no folder {Path(path).parent}"
    return None if shutil.which("gnuplot") else "needs gnuplot (Debian: gnuplot-nox)"


def quoted(text: str) -> str:
    """As gnuplot reads it in single quotes."""
    return "'" + text.replace("'", "''") + "'"


def points(results: Results, rows: list[str], name: str, base: str, measure: Callable[[Sample], float], shift: float) -> list[str]:
    """Place, median and quartiles of each row that has a number."""
    lines = []
    for place, row in enumerate(rows):
        ratios = results.ratios(row, name, base, measure)
        if not ratios or (row, name) in results.failures:
            continue
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        lines.append(f"{place + shift:.3f} {middle:.4f} {low:.4f} {high:.4f}")
    return lines


def script(path: str, results: Results, rows: list[str], names: list[str], base: str, measure: Callable[[Sample], float], title: str) -> str:
    """What gnuplot is told."""
    terminal = TERMINALS[Path(path).suffix]
    width, height = max(LEAST_WIDTH, 160 + WIDTH_OF_ROW * len(rows)), HEIGHT
    size = f"{width / PIXELS_PER_INCH:.1f}in,{height / PIXELS_PER_INCH:.1f}in" if terminal == "pdfcairo" else f"{width},{height}"
    lines = [f"set terminal {terminal} size {size} noenhanced", f"set output {quoted(path)}",
             f"set title {quoted(title)}", "set logscale y 2", "set grid ytics", "set key outside top horizontal",
             f"set xrange [-0.6:{len(rows) - 0.4:.1f}]",
             "set xtics rotate by -60 (" + ", ".join(f"{quoted(row)} {place}" for place, row in enumerate(rows)) + ")"]
    drawn = []
    for number, name in enumerate(names):
        shift = (number - (len(names) - 1) / 2) * 0.7 / max(1, len(names))
        found = points(results, rows, name, base, measure, shift)
        if found:
            lines += [f"$data{number} << END", *found, "END"]
            drawn.append(f"$data{number} using 1:2:3:4 with yerrorbars pointtype {number + 4} title {quoted(name)}")
    lines.append("plot " + ", ".join(["1 with lines linecolor 'gray' notitle", *drawn]))
    return "\n".join(lines) + "\n"


def write_plot(path: str, *arguments) -> None:
    """Draws into the file `path`, of a kind that its name tells; the rest as for script()."""
    run = subprocess.run(["gnuplot"], input=script(path, *arguments), capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Failure(f"gnuplot: {run.stderr.strip()}")
