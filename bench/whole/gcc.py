"""gcc -O1 -c of a generated C file; the compiler proper and the assembler have
the allocator too."""

import random
import shutil

OPERATORS = ["+", "-", "*", "^", "&", "|"]


def missing():
    return None if shutil.which("gcc") else "gcc"


def function(rng, number):
    """The text of a function with a loop, a switch and some arithmetic."""
    lines = [f"static unsigned f{number}(struct record *r, unsigned a, unsigned b)", "{", f"    unsigned s = {rng.randrange(1000)};",
             f"    for (unsigned i = 0; i < a % {rng.randrange(3, 50)}; i++) {{", "        switch ((s + i) % 4) {"]
    for case in range(4):
        first, second = rng.choice(OPERATORS), rng.choice(OPERATORS)
        lines.append(f"        case {case}: s = (s {first} r->v[(i + {case}) % 8]) {second} (b + {rng.randrange(1, 99)}u); break;")
    lines += ["        }", f"        r->v[s % 8] {rng.choice(OPERATORS)}= s >> {rng.randrange(1, 8)};", "    }"]
    callee = f"f{rng.randrange(number)}(r, s, a)" if number else "a"
    lines += [f"    return s > {rng.randrange(10000)}u ? {callee} : s ^ b;", "}", ""]
    return lines


def prepare(context):
    rng = random.Random(context.seed)
    functions = context.amount(130)
    text = ["struct record { unsigned v[8]; };", ""]
    for number in range(functions):
        text += function(rng, number)
    text += ["unsigned (*const all[])(struct record *, unsigned, unsigned) = {", *(f"    f{i}," for i in range(functions)), "};", ""]
    (context.folder / "work.c").write_text("\n".join(text), encoding="ascii")


def run(context, library):
    return context.run(["gcc", "-O1", "-c", "-o", "work.o", "work.c"], library)
