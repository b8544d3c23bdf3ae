"""The rows of the table: what is run."""

import importlib
from dataclasses import dataclass

from launch import Context, Sample

PROGRAMS = [
    "larson", "xmalloc_test", "cache_scratch", "cache_thrash", "mstress", "glibc_simple", "glibc_thread",
    "cfrac", "espresso", "barnes", "sh6bench", "sh8bench", "alloc_test", "rptest", "malloc_large", "mleak",
]
WHOLE = ["python", "sqlite", "gcc", "redis"]
LOOPS = ["pair", "pair_among", "pair_mix", "random", "window_small", "window_wide", "two_threads", "prodcons", "realloc_grow", "churn", "large"]
MANY = ["many_producers", "many_consumers"]


@dataclass(frozen=True)
class Program:
    """A row that is one of our own programs."""

    name: str
    group: str  # "suite" or "loops"
    command: tuple[str, ...]

    def missing(self) -> str | None:
        """What it needs and does not find on this machine."""
        return None

    def prepare(self, context: Context) -> None:
        """Makes its input; not measured."""

    def run(self, context: Context, library: str) -> Sample:
        """Runs it once."""
        program, *arguments = self.command
        return context.run([str(context.programs / program), *arguments, repr(context.scale)], library)


class Whole:
    """A row that is a program of others, driven by a module of whole/."""

    group = "suite"

    def __init__(self, name: str):
        self.name = name
        module = importlib.import_module(f"whole.{name}")
        self.missing, self.prepare, self.run = module.missing, module.prepare, module.run


def all_rows() -> list[Program | Whole]:
    """Every row, in the order of the table."""
    suite = [Program(name, "suite", (name,)) for name in PROGRAMS]
    loops = [Program(name, "loops", ("prodcons_many" if name in MANY else "loops", name)) for name in [*LOOPS, *MANY]]
    return [*suite, *map(Whole, WHOLE), *loops]
