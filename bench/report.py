"""The tables: ratios to the base, their spread, and geometric means."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from launch import Sample

FAILED = "failed"


@dataclass
class Results:
    """All samples: results[row, allocator][round]."""

    samples: dict[tuple[str, str], dict[int, Sample]] = field(default_factory=dict)
    failures: set[tuple[str, str]] = field(default_factory=set)

    def add(self, row: str, allocator: str, number: int, sample: Sample) -> None:
        """Keeps one sample."""
        self.samples.setdefault((row, allocator), {})[number] = sample

    def values(self, row: str, allocator: str, measure: Callable[[Sample], float]) -> dict[int, float]:
        """What was measured in each round."""
        return {number: measure(sample) for number, sample in self.samples.get((row, allocator), {}).items()}

    def ratios(self, row: str, allocator: str, base: str, measure: Callable[[Sample], float]) -> list[float]:
        """To the base in the same round, where there are both."""
        below = self.values(row, base, measure)
        return [value / below[number] for number, value in self.values(row, allocator, measure).items() if number in below]


def cell(ratios: list[float]) -> str:
    """The median, with the first and third quartile if there are several."""
    middle = f"{statistics.median(ratios):.2f}"
    if len(ratios) < 2:
        return middle
    first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle} {first:.2f}-{third:.2f}"


def mean_cell(medians: list[float | None]) -> str:
    """The geometric mean, of all rows or none: a failed row must not flatter."""
    if not medians or None in medians:
        return "-"
    return f"{statistics.geometric_mean(medians):.2f}"


def print_lines(lines: list[list[str]]) -> None:
    """Columns as wide as they need to be; the first to the left."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    for first, *others in lines:
        print("  ".join([first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:]))]).rstrip())


def table(title: str, results: Results, groups: dict[str, list[str]], names: list[str], base: str,
          measure: Callable[[Sample], float], show: Callable[[float], str]) -> None:
    """Prints one table; `show` formats the base's own median for the last column."""
    lines = [[title, *names, f"{base} itself"]]
    means = []
    for group, rows in groups.items():
        medians: dict[str, list[float | None]] = {name: [] for name in names}
        for row in rows:
            line = [row]
            for name in names:
                ratios = results.ratios(row, name, base, measure)
                failed = (row, name) in results.failures
                medians[name].append(statistics.median(ratios) if ratios and not failed else None)
                line.append(FAILED if failed else cell(ratios) if ratios else "-")
            own = list(results.values(row, base, measure).values())
            lines.append([*line, FAILED if (row, base) in results.failures else show(statistics.median(own)) if own else "-"])
        means.append([f"geometric mean, {group}", *(mean_cell(medians[name]) for name in names), ""])
    print_lines(lines + means)


def report(results: Results, groups: dict[str, list[str]], allocators: list[str], base: str, processor: bool) -> None:
    """Prints the table of wall or processor times and that of memory."""
    names = [name for name in allocators if name != base]
    print()
    if processor:
        table(f"processor time / {base}", results, groups, names, base, lambda s: s.processor, lambda v: f"{v:.2f} s")
    else:
        table(f"wall time / {base}", results, groups, names, base, lambda s: s.seconds, lambda v: f"{v:.2f} s")
    print()
    table(f"peak memory / {base}", results, groups, names, base, lambda s: s.peak_kib, lambda v: f"{v / 1024:.1f} MiB")
