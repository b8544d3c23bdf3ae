"""Which allocators a run compares: what --allocators, --base and --against say."""

import argparse
import os
import platform
import random
import re
import sys
from pathlib import Path

import allocators

ROOT = Path(__file__).resolve().parent.parent


def say(text):
    """A line about the run, beside the table."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def die(text):
    """Ends because of wrong usage or a machine that lacks what is needed."""
    say(text)
    sys.exit(2)


def add_common(parser: argparse.ArgumentParser, rounds: int, usual: list[str]) -> None:
    """The options that all benchmarks have."""
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"rounds, each with everything (default {rounds})")
    parser.add_argument("--allocators", metavar="LIST", help=f"of {','.join(allocators.NAMES)} (default {','.join(usual)})")
    parser.add_argument("--base", choices=[*allocators.NAMES, "against"], help=f"what ratios are to (default {allocators.BASE})")
    parser.add_argument("--against", metavar="LIB", help="compare bulkhead with the build LIB, which is the base")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="multiply the work by X")
    parser.add_argument("--seed", type=int, help="repeat a run with the seed that it printed")
    parser.add_argument("--build", default=str(ROOT / "build"), metavar="DIR", help="the build folder with bench/ in it (default build)")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="for one run of one program (default 600)")
    parser.set_defaults(usual=usual)


def parse_common(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says, with a seed."""
    options = parser.parse_args()
    if options.rounds < 1 or not 0 < options.scale <= 1e6 or options.timeout <= 0:
        parser.error("--rounds, --scale and --timeout must be above 0")
    options.build = str(Path(options.build).resolve())
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**9)
    return options


def check_build(options: argparse.Namespace) -> None:
    """Ends where the programs are not built."""
    if not (Path(options.build) / "bench" / "measure").is_file():
        die(f"{options.build} has no bench/measure: build with -DBULKHEAD_BENCH=ON, or use './bulkhead bench'")


def conditions(options: argparse.Namespace) -> str:
    """What a table's numbers depend on."""
    return (f"seed {options.seed}, {options.rounds} rounds, scale {options.scale:g}, {len(os.sched_getaffinity(0))} processors, "
            f"load {os.getloadavg()[0]:.1f}, Linux {platform.release()}")


def wanted_names(options):
    """The names of the allocators to be measured, and that of the base."""
    if options.against:
        names = options.allocators.split(",") if options.allocators else ["bulkhead"]
        base = options.base or "against"
        names = [*names, "against"]
    else:
        names = options.allocators.split(",") if options.allocators else options.usual
        base = options.base or allocators.BASE
    names = list(dict.fromkeys([base, *names]))
    unknown = [name for name in names if name not in allocators.NAMES and not (name == "against" and options.against)]
    if unknown:
        die(f"there is no allocator '{unknown[0]}'; there are: {', '.join(allocators.NAMES)}")
    return names, base


def find_one(name, options):
    """The allocator of that name, or None and why it cannot be measured."""
    if name == "against":
        path = Path(options.against).resolve()
        found, why = (allocators.Allocator(name, str(path)), "") if path.is_file() else (None, f"there is no file {options.against}")
    else:
        found, why = allocators.find(name, ROOT, Path(options.build))
    if found and re.search(r"[:\s]", found.library):
        return None, f"LD_PRELOAD cannot name {found.library}: it has a colon or a space in its path"
    if found and not allocators.is_loaded(found):
        return None, f"{found.library} cannot be preloaded"
    return found, why


def choose_allocators(options):
    """The allocators to be measured, and the name of the base."""
    names, base = wanted_names(options)
    chosen = []
    for name in names:
        found, why = find_one(name, options)
        if found:
            chosen.append(found)
        elif name == "against" or name == options.base:
            die(f"{name}: {why}")
        else:
            say(f"{name} left out: {why}")
    if len(chosen) < 2:
        die("fewer than two allocators to compare")
    if base not in [allocator.name for allocator in chosen]:
        base = chosen[0].name
        say(f"ratios are to {base}")
    return chosen, base
