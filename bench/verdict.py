"""The budget, and whether a run kept it."""

import statistics
from collections.abc import Callable

from launch import Sample
from report import Results

# What the budget's ratios are to; with another base there is no verdict.
BASE = "mimalloc"
# Geometric means: of time by allocator and group of rows, of peak memory by allocator.
TIME_BOUNDS = {
    "bulkhead": {"suite": 1.05, "loops": 1.5},
    "bulkhead-hardened": {"suite": 1.35},
    "bulkhead-off": {"suite": 1.00, "loops": 1.00},
}
MEMORY_BOUNDS = {"bulkhead": {"suite": 1.10}}
# Single rows of the suite.
ROW_BOUNDS = {"bulkhead": 1.25}


def medians(results: Results, rows: list[str], name: str, base: str, measure: Callable[[Sample], float]) -> dict[str, float] | None:
    """Each row's median ratio, or None where a row has none: a failed row must not help."""
    if any((row, one) in results.failures for row in rows for one in (name, base)):
        return None
    ratios = {row: results.ratios(row, name, base, measure) for row in rows}
    return {row: statistics.median(found) for row, found in ratios.items()} if all(ratios.values()) else None


def judge(title: str, value: float, bound: float, remark: str) -> str:
    """One line; what is shown decides, so that no line says that 1.05 is over 1.05."""
    kept = "within" if round(value, 2) <= bound else "OVER"
    return f"verdict: {title} {value:.2f}, bound {bound:.2f}: {kept}{remark}"


def mean_lines(what: str, bounds: dict[str, dict[str, float]], results: Results, groups: dict[str, list[str]],
               names: list[str], all_rows: dict[str, list[str]], measure: Callable[[Sample], float]) -> list[str]:
    """The geometric means that have a bound."""
    lines = []
    for name in names:
        for group, bound in bounds.get(name, {}).items():
            rows = groups.get(group, [])
            if not rows:
                continue
            found = medians(results, rows, name, BASE, measure)
            title = f"{name}, {what}, {group}:"
            missing = len(all_rows[group]) - len(rows)
            remark = f" ({missing} of {len(all_rows[group])} rows not measured)" if missing else ""
            lines.append(judge(title, statistics.geometric_mean(found.values()), bound, remark) if found
                         else f"verdict: {title} none, a row has no number: OVER")
    return lines


def row_lines(results: Results, groups: dict[str, list[str]], names: list[str], measure: Callable[[Sample], float]) -> list[str]:
    """The rows above the bound for single rows, the worst first."""
    lines = []
    for name in names:
        if name not in ROW_BOUNDS or not groups.get("suite"):
            continue
        bound = ROW_BOUNDS[name]
        found = {row: (medians(results, [row], name, BASE, measure) or {}).get(row) for row in groups["suite"]}
        over = {row: ratio for row, ratio in found.items() if ratio is not None and round(ratio, 2) > bound}
        named = [f"{row} {over[row]:.2f}" for row in sorted(over, key=over.__getitem__, reverse=True)]
        named += [f"{row} failed" for row, ratio in found.items() if ratio is None]
        lines.append(f"verdict: {name}, rows of the suite, bound {bound:.2f}: " + (f"OVER in {', '.join(named)}" if named else "within"))
    return lines


def verdict(results: Results, groups: dict[str, list[str]], all_rows: dict[str, list[str]], names: list[str], base: str,
            time: Callable[[Sample], float]) -> list[str]:
    """A line for each bound of the budget that the run touches; `groups` are the rows measured."""
    if base != BASE:
        return []
    return [*mean_lines("time", TIME_BOUNDS, results, groups, names, all_rows, time),
            *row_lines(results, groups, names, time),
            *mean_lines("peak memory", MEMORY_BOUNDS, results, groups, names, all_rows, lambda s: s.peak_kib)]
