#!/usr/bin/env python3
"""The seed corpus: one input for each exploitation technique of the attack table, and
correct programs of every kind.

  seeds.py REPLAY-FOLDER OUT-FOLDER   writes OUT-FOLDER/TARGET/NAME

First bytes of instructions are asked of the programs themselves (fuzz-ops), so that the
corpus follows program.def."""
import os
import struct
import subprocess
import sys

SECURE, HARDENED = 0, 1
NOW, COLD, STEPS = 0x40, 0x1e, 0x0c + 0x20  # purge at once; a cold start; look after each step


class Assembler:
    def __init__(self, folder):
        self.bytes = {}
        out = subprocess.run([os.path.join(folder, "fuzz-ops")], check=True, capture_output=True, text=True).stdout
        for line in out.splitlines():
            target, op, byte = line.split()
            self.bytes[target, op] = int(byte)

    def program(self, target, mode, look, any_size, *steps):
        # With the last five bits 16 all invariants are looked at in the end.
        # The first byte a multiple of 16: large blocks and blocks of MANY without a narrow bound (program_read).
        out = struct.pack("BBB", mode, 0x10 if any_size else 0x12, 0x30 if look else 0x31)
        for op, *args in steps:
            args = (args + [0, 0, 0])[:3]
            out += struct.pack("BBBB", self.bytes[target, op], *args)
        return out


def size(n):
    """b, c of an instruction that asks for n bytes, n below 128."""
    return n, 0


# Kinds of instructions by what the attack table calls the technique.
def correct():
    """Programs without a bug, for every target that runs programs."""
    def blocks(n, bytes_each, first=0):
        return [("MALLOC", first + i, *size(bytes_each)) for i in range(n)]
    yield "malloc-free", blocks(8, 24) + [("FREE", i) for i in range(8)]
    yield "remote-free", blocks(12, 40) + [("SWITCH", 1)] + [("FREE", i) for i in range(12)] + [("SWITCH", 0)] + blocks(4, 40)
    yield "remote-groups", [("MANY", 0, 0xff, 2), ("MANY", 32, 0xff, 2), ("FREE_MANY", 0, 31, 0), ("MANY", 0, 0xff, 2), ("SWITCH", 1),
                            ("FREE", 40), ("FREE", 0), ("FREE", 41), ("FREE", 1)]
    again = [("FREE_MANY", 0, 31, 0), ("MANY", 0, 0xff, 2), ("FREE_MANY", 32, 31, 0), ("MANY", 32, 0xff, 2)]
    yield "remote-groups-taken", [("MANY", 0, 0xff, 2), ("MANY", 32, 0xff, 2)] + 3 * again + [
        ("SWITCH", 1), ("FREE_MANY", 0, 31, 0), ("FREE_MANY", 32, 25, 0), ("SWITCH", 0), ("COLLECT", 0)]
    yield "exit-adopt", blocks(6, 64) + [("EXIT", 0, 1), ("SWITCH", 1)] + blocks(6, 64, 20) + [("FREE", i) for i in range(6)]
    yield "late-thread", blocks(3, 16) + [("EXIT", 0, 0), ("MALLOC", 9, 20), ("FREE", 9), ("EXIT", 0, 1), ("MALLOC", 10, 20)]
    yield "left-heap", blocks(3, 16) + [("EXIT", 0, 3), ("MALLOC", 9, 20), ("FREE", 0)]
    yield "heaps", [("HEAP_NEW", 0), ("HEAP_ALLOC", 1, 0, 50), ("HEAP_ALLOC", 2, 4, 60), ("HEAP_END", 0, 0), ("FREE", 1), ("FREE", 2)]
    yield "heap-again", [("HEAP_NEW", 0), ("HEAP_END", 0, 0), ("HEAP_NEW", 1), ("HEAP_END", 1, 1), ("HEAP_NEW", 2)]
    yield "destroy", [("HEAP_NEW", 1), ("HEAP_ALLOC", 1, 1, 50), ("HEAP_ALLOC", 2, 1, 60), ("HEAP_END", 1, 1), ("MALLOC", 3, 50)]
    yield "realloc", [("MALLOC", 0, 10), ("REALLOC", 0, 100), ("REALLOC", 0, 250, 0x40), ("REALLOC", 0, 9, 0xc0), ("REALLOC", 0, 5), ("REALLOC", 0, 0)]
    yield "calloc-again", [("MANY", 0, 0xff, 2), ("FREE_MANY", 0, 31, 0), ("CALLOC", 0, 63), ("CALLOC", 1, 63)]
    yield "aligned", [("ALIGNED", i, i, 30) for i in range(18)] + [("FREE_MANY", 0, 20, 0)]
    yield "large", [("LARGE", 0, 12, 3), ("LARGE", 1, 40, 0), ("FREE", 0), ("LARGE", 2, 12, 0), ("SWITCH", 1), ("FREE", 1), ("TICK", 3), ("LARGE", 3, 40, 0)]
    yield "huge", [("LARGE", 0, 255, 255), ("LARGE", 1, 255, 1), ("FREE", 0), ("LARGE", 2, 250, 0), ("FREE", 2), ("COLLECT", 1)]
    yield "purge", [("MANY", 0, 0xff, 0x43), ("FREE_MANY", 0, 31, 0), ("COLLECT", 0), ("TICK", 6), ("MANY", 0, 0xff, 0x42), ("TICK", 6), ("COLLECT", 1)]
    yield "residue", [("MANY", 0, 184, 0x42), ("FREE_MANY", 0, 31, 0), ("COLLECT", 0)] + [("MALLOC", i, 100) for i in range(16)]
    yield "residue-2", [("MANY", i, 0xff, 2) for i in (0, 32)] + [("FREE_MANY", i, 31, 0) for i in (0, 32)] + [("COLLECT", 0)] + [
        ("MALLOC", i, 200, 0x40) for i in range(24)]
    # What a page of few blocks in use leaves unreached is the former page's: another class's.
    yield "residue-part", [("MANY", i, 11, 0x64) for i in range(0, 14, 2)] + [("FREE_MANY", 0, 31, 0), ("COLLECT", 0), ("MALLOC", 20, 4, 0x64),
                           ("FREE", 20), ("COLLECT", 0)] + [("MANY", i, 116, 0) for i in range(0, 64, 16)]
    yield "residue-part-2", [("MANY", 0, 0x58, 0x64), ("MANY", 16, 0x58, 0x64), ("FREE_MANY", 0, 31, 0), ("COLLECT", 0), ("MALLOC", 20, 0x78, 0x64),
                             ("FREE", 20), ("COLLECT", 0), ("MANY", 0, 0x78, 0x64), ("MANY", 16, 0x78, 0x64)]
    # A block grows into slots that pages of small blocks left: to their border, then beyond.
    others = [("MALLOC", 1 + i, (i % 8) << 4 | 4 + i // 8, 0x64) for i in range(48)]
    yield "growth", 3 * ([("COLLECT", 1), ("LARGE", 0, 11, 0xff)] + others + [
        ("FREE_MANY", 1, 31, 0), ("FREE_MANY", 33, 30, 0), ("COLLECT", 0), ("REALLOC", 0, 48, 0xc0), ("REALLOC", 0, 56, 0xc0), ("FREE", 0)])
    yield "large-over-small", 3 * ([("COLLECT", 1)] + others + [("FREE_MANY", 1, 31, 0), ("FREE_MANY", 33, 30, 0), ("COLLECT", 0)] + [
        ("LARGE", i, 9, 0) for i in range(6)])
    yield "zero-size", [("MALLOC", i, 0, 7) for i in range(6)] + [("FREE", i) for i in range(6)] + [("ALIGNED", 7, 12, 0), ("REALLOC", 7, 30)]
    yield "verify", blocks(5, 30) + [("VERIFY",), ("FREE", 2), ("VERIFY",)]


def api_only():
    yield "sized", [("MALLOC", 0, 50), ("SIZED", 0), ("ALIGNED", 1, 6, 40), ("SIZED", 1, 0)]
    yield "resize", [("MALLOC", 0, 50)] + [("RESIZE", form << 6, 10 + 30 * i, i & 4) for i, form in enumerate((0, 1, 2, 3, 0, 1))]
    yield "inspect", [("MALLOC", 0, 50), ("HEAP_NEW", 0), ("HEAP_ALLOC", 1, 0, 30)] + [("INSPECT", i & 1, i, 3) for i in range(10)]
    yield "string", [("STRING", 0, 0, 9), ("STRING", 1, 1, 40)]
    yield "at", [("AT", i, 4 + i, (0x25 + 32 * i) & 255) for i in range(10)]


def api_extra():
    yield "callback", [("CALLBACK", 1)] + [("MANY", 0, 0xff, 2), ("FREE_MANY", 0, 31, 0)] * 3 + [("CALLBACK", 0), ("MALLOC", 63, 9)]
    yield "setting", [("SETTING", 0), ("MALLOC", 0, 60), ("FREE", 0), ("COLLECT", 1), ("SETTING", 3)]
    yield "refused", [("REFUSE", 0xff, 7), ("MANY", 0, 0xff, 0x43), ("LARGE", 0, 60, 0), ("FREE", 0)]


def inband():
    """Rows link-*, over-*, under-*, stale-write-*, walk-*, tcache-poisoning and their like."""
    few = [("MANY", 0, 0x3f, 0x02)]  # eight of one size
    freed = few + [("FREE_MANY", 0, 5, 0)]
    again = [("MANY", 10, 0xff, 0x02), ("MANY", 42, 0x7f, 0x02)]
    for name, steps in {
        "over-1": few + [("OVERFLOW", 2, 0, 0x41), ("FREE", 2)],
        "over-nul": few + [("OVERFLOW", 3, 0, 0xc0), ("FREE", 3)],
        "over-skip": few + [("OVERFLOW", 2, 3, 0x81), ("OVERFLOW", 3, 7, 0x81), ("FREE", 2), ("FREE", 3)],
        "over-skip-2": [("MALLOC", i, 40 + i) for i in range(16)] + [("OVERFLOW", 1, 7, 0x81), ("FREE", 1)],
        "over-skip-3": [("MALLOC", i, 40 + i) for i in range(16)] + [("OVERFLOW", 2, 5, 0x81), ("FREE", 2)],
        "over-skip-4": [("MALLOC", i, 40 + i) for i in range(16)] + [("OVERFLOW", 0, 6, 0x81), ("FREE", 0)],
        "over-last": [("MALLOC", i, 55) for i in range(8)] + [("OVERFLOW", 3, 8, 0x81), ("FREE", 3)],
        "stale-write-released": [("HEAP_NEW", 0), ("HEAP_ALLOC", 1, 0, 50), ("HEAP_ALLOC", 2, 0, 50), ("FREE", 1), ("STALE_WRITE", 1, 1, 0x47),
                                 ("HEAP_END", 0, 1)],
        "over-released": [("HEAP_NEW", 0), ("HEAP_ALLOC", 1, 0, 50), ("HEAP_ALLOC", 2, 0, 50), ("OVERFLOW", 1, 0, 0x41), ("HEAP_END", 0, 1)],
        "over-neighbour-free": few + [("FREE", 4), ("OVERFLOW", 3, 30, 0x41)] + again,
        "walk-up": few + [("OVERFLOW", 3, 0xff, 0x41)],
        "walk-down": few + [("UNDERFLOW", 3, 0xff, 0x41)],
        "under-1": few + [("UNDERFLOW", 3, 0, 0x41), ("FREE", 3)],
        "large-end": [("LARGE", 0, 20, 0), ("OVERFLOW", 0, 200, 0x41)],
        "large-under": [("LARGE", i, 20, 0) for i in range(6)] + [("UNDERFLOW", 3, 0, 0x41)],
        "stale-write": freed + [("STALE_WRITE", 2, 0, 0x47)] + again,
        "stale-write-middle": freed + [("STALE_WRITE", 2, 1, 0x47)] + again,
        "stale-write-exit": freed + [("STALE_WRITE", 2, 1, 0x47)],
        "stale-write-huge": [("LARGE", 0, 255, 0), ("FREE", 0), ("STALE_WRITE", 0, 3, 0x41)],
        "link-copy": freed + [("COPY", 1, 2)] + again,
        "link-replay": freed + [("REPLAY", 1, 0, 0)] + again[:1] + [("FREE", 1), ("REPLAY", 1, 0, 1)] + again,
        "empty-write": [("MALLOC", 0, 0, 7), ("FREE", 0), ("STALE_WRITE", 0, 0, 0x41)],
        "calloc-after-write": freed + [("STALE_WRITE", 2, 1, 0x47)] + [("CALLOC", 20 + i, 2) for i in range(12)],
        "remote-stale": few + [("SWITCH", 1), ("FREE", 2), ("STALE_WRITE", 2, 0, 0x41), ("SWITCH", 0)] + again,
    }.items():
        yield name, steps
    # In profile hardened: written to after the quarantine, so that only the look at reuse finds it.
    for name, sizes in ("small", (0xff, 0x02)), ("middle", (0x78, 0x42)):
        turn = [("MANY", 32, *sizes), ("FREE_MANY", 32, 31, 0)]
        yield f"stale-write-late-{name}", [("MANY", 0, *sizes), ("FREE_MANY", 0, 31, 0)] + 8 * turn + [("STALE_WRITE", i, 1, 0x47) for i in range(16)] + 8 * turn
    # A free block has a link only once a refill has put it on a list: so many blocks of
    # one page, some refills after most of them were freed, and the rest is listed.
    size_bytes = (184, 0x40)
    listed = [("MANY", 0, 184, 0x42), ("FREE_MANY", 0, 17, 0)] + [("MALLOC", 30 + i, *size_bytes) for i in range(4)]
    pops = [("MALLOC", 34 + i, *size_bytes) for i in range(20)]
    for name, steps in {
        "write": [("STALE_WRITE", i, 0, 0x40) for i in range(0, 20, 3)],
        "byte": [("STALE_WRITE", i, 0x87, 0x40) for i in range(20)],
        "copy": [("COPY", i, i + 1) for i in range(0, 20, 3)],
        "replay": [("REPLAY", 3, 0, 0), ("REPLAY", 9, 0, 1), ("REPLAY", 15, 0, 1)],
        "nul": [("OVERFLOW", i, 0, 0xc0) for i in range(18, 24)],
    }.items():
        yield "listed-" + name, listed + steps + pops
    for kind, name in enumerate(("end", "self", "live", "live-2", "index", "beyond", "misaligned", "far")):
        yield "link-forged-" + name, listed + [("FORGE", i, kind, 24 + kind) for i in range(0, 20, 2)] + pops


        yield "entry-forged-" + name, listed + [("FORGE", i, 0x20 | kind, entry << 6 | 24 + kind) for i, entry in ((0, 0), (5, 3))] + pops
        yield "place-forged-" + name, listed + [("FORGE", 0, 0x30 | kind, 24 + kind)] + pops

    yield "link-forged-both", (listed + [("FORGE", i, 0x40, 0) for i in range(18, 24)] +
                               [("FORGE", i, 2, 18 + i % 6) for i in range(18)] + pops)


def badfree():
    """Rows double-free*, free-*, realloc-freed, usable-size-*, delete-size-*."""
    some = [("MANY", 0, 0x3f, 0x02), ("LARGE", 20, 30, 0), ("MALLOC", 21), ("HEAP_NEW", 0), ("HEAP_ALLOC", 22, 0, 30)]
    names = ["twice", "twice-2", "freed", "freed-2", "middle", "middle-2", "before", "behind", "stack", "static", "code", "integer",
             "random", "unused", "control", "size"]
    forms = ["free", "realloc", "usable", "sized"]
    for kind, name in enumerate(names):
        for form, call in enumerate(forms):
            yield f"{call}-{name}", some + [("FREE", 5), ("BAD_FREE", 5 if "freed" in name else 2, kind + 16 * form, 0x55)]
    yield "remote-then-owner", some + [("BAD_FREE", 2, 0, 11)]
    yield "owner-then-remote", some + [("BAD_FREE", 2, 0, 2)]
    yield "both-remote", some + [("BAD_FREE", 2, 0, 3)]
    yield "after-release", [("MANY", 0, 0x3f, 0x02), ("FREE_MANY", 0, 31, 0), ("COLLECT", 1), ("BAD_FREE", 2, 2, 0)]
    yield "large-twice", [("LARGE", 0, 30, 0), ("BAD_FREE", 0, 0, 0)]
    yield "destroyed", some + [("HEAP_END", 0, 1), ("BAD_FREE", 22, 2, 0)]
    yield "dead-owner", [("MANY", 0, 0x3f, 0x02), ("EXIT", 0, 1), ("SWITCH", 1), ("BAD_FREE", 1, 0, 0)]
    for kind in range(4):
        yield f"handle-{kind}", [("HEAP_NEW", 0), ("SWITCH", 1), ("HEAP_NEW", 0), ("HEAP_NEW", 1), ("HEAP_END", 1, 0), ("SWITCH", 0),
                                 ("HEAP_NEW", 2), ("HEAP_END", 2, 0), ("BAD_HEAP", kind, kind, 0)]


def control():
    some = [("MANY", 0, 0x3f, 0x02), ("FREE_MANY", 0, 3, 1), ("LARGE", 30, 30, 0)]
    after = [("MANY", 10, 0x3f, 0x02), ("FREE_MANY", 0, 31, 0), ("COLLECT", 1)]
    for region in range(8):
        for at in (0, 3, 8, 9, 12):
            yield f"word-{region}-{at}", some + [("WORD", region | 2 << 3, at, 0xe1)] + after
        yield f"flip-{region}", some + [("FLIP", region | 2 << 3, 4, 3)] + after
    yield "swap", [("MALLOC", 0, 30), ("MALLOC", 1, 90), ("SWAP", 0, 1, 0), ("FREE", 0), ("FREE", 1)]
    yield "swap-maps", [("MALLOC", 0, 30), ("MALLOC", 1, 90), ("SWAP", 0, 1, 1), ("FREE", 0), ("FREE", 1)]


def arith():
    for x in range(0, 256, 17):
        yield f"wild-{x}", [("WILD", form << 6 | form, x, (x * 7 + form) & 255) for form in range(4)] + [
            ("MALLOC", 5, 40), ("WILD", 5, x, 3), ("MALLOC", 6, 40), ("WILD", 0x46, x, 0x42), ("MALLOC", 7, 40), ("WILD", 0x87, 3, x)]


def options():
    texts = ["profile=hardened", "profile=secure:guard=mprotect:purge_delay=0", "quarantine_bytes=64k", "trap_from=1g:trap_from=4096",
             "large_quarantine_bytes=64g", "log_file=/tmp/x:report=json:log_fd=7", "purge_delay=4294967295", "purge_delay=4294967296",
             "verbose=3\n# a comment\n show_stats = 1 \nsyslog=1", "PROFILE=Hardened", "nothing=1:=:a:==", "seal=1:foreign=ignore",
             "trap_from=18446744073709551615k", "profile=hardened\nprofile=secure\n"]
    for i, text in enumerate(texts):
        for mode in (1, 2, 4, 8, 15):
            yield f"text-{i}-{mode}", bytes([mode]) + text.encode()


def report():
    maps = b"00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/a\\b \"c\"\n7f0000000000-7fffffffffff rw-p 00000000 00:00 0 [stack]\n"
    for mode in range(0, 256, 5):
        for where in (0, 0x1234, 0x401000, 0x7f0000001000):
            yield f"at-{mode}-{where:x}", struct.pack("<BQBBBB", mode, where, mode % 6 | 0x30, 0, mode & 127, 0xff if mode & 1 else 3) + maps


def process():
    """Profiles and options with each bug, and with correct steps of each kind."""
    blocks = [(0, i, 20 + 9 * i, 0) for i in range(8)] + [(5, 8, 40, 0), (6, 9, 50, 0), (7, 0x8a, 60, 0), (3, 11, 70, 0), (1, 12, 200, 0x80), (0, 13, 3, 0xe0)]
    correct = {
        "threads": [(8, 3), (0, 20, 30), (2, 1), (2, 2), (0, 21, 90), (9, 2), (2, 3), (0, 22, 10), (12, 1)],
        "resize": [(4, i + 32 * form, 100 + 40 * i, 0) for form in range(4) for i in range(4)],
        "heaps": [(13, 20 + form + 32 * form, 40 + form, 0) for form in range(8)],
        "ask": [(11, 3, form) for form in range(8)] + [(14, 1), (12, 0), (12, 2), (12, 3), (18, 0), (11, 0, 5)],
        "leaks": [(10,), (16, 2), (16, 8), (10,), (8, 1), (10,), (9, 1), (10,), (16, 3)],
        "many": [(15, 0, 24), (19, 0), (15, 0, 100), (19, 1), (15, 0, 100), (12, 2), (15, 0, 24), (10,)],
        "rare": [(20, 0, form, 10 * form) for form in range(24)] + [(20, 0, 0x80 | form, 99) for form in range(3)],
        "large": [(0, 14, 8, 0xc0), (0, 15, 8, 0xc0), (2, 14), (4, 15, 16, 0xc0), (1, 14, 0xff, 0xff), (1, 16, 0x20, 0xe0), (2, 16)],
    }
    # Options, a byte each: guarded blocks, stacks, reports, the rest.
    settings = {"plain": (0, 0, 0, 0), "all-stacks": (1, 0x40 | 4 | 2, 4, 0), "unwind": (2, 0x10 | 4 | 3, 8, 4), "precise": (9, 0x20 | 2, 1, 1),
                "recover": (0x61, 0x30 | 1, 0x10, 2), "few": (0x11, 8 | 2, 0x30, 0xc4), "site": (7, 4 | 2, 2, 0x20), "file": (0xa3, 0xc0 | 6, 2, 0x48),
                "sealed": (5, 2, 0x43, 0x18), "fill": (0x21, 6, 0x8c, 0x1c), "off": (0x44, 1, 0xc0, 0x34)}
    for p, profile in enumerate(("secure", "hardened", "fuzz", "debug")):
        for setting, options in settings.items():
            def made(steps):
                return bytes((p,) + options) + b"".join(bytes((step + (0, 0, 0))[:4]) for step in blocks + steps)
            for name, steps in correct.items():
                yield f"{profile}-{setting}-{name}", made(steps)
            for kind in range(10):
                for place, by in ((3, 0), (3, 9), (8, 3), (9, 40)):
                    if place == 3 or setting in ("all-stacks", "precise", "plain"):
                        yield f"{profile}-{setting}-bug-{kind}-{place}-{by}", made([(17, place, kind, by), (2, place), (12, 1), (0, 30, 47, 0)])


def main():
    folder, out = sys.argv[1:3]
    assembler = Assembler(folder)
    programs = {"api": [correct, api_only, api_extra], "inband": [correct, inband], "badfree": [correct, badfree], "control": [correct, control],
                "arith": [correct, api_only, arith]}
    count = 0
    for target, makers in programs.items():
        os.makedirs(os.path.join(out, target), exist_ok=True)
        for maker in makers:
            for name, steps in maker():
                for profile, mode in (("secure", SECURE), ("secure-look", SECURE), ("hardened", HARDENED), ("secure-cold", COLD), ("hardened-steps", HARDENED | STEPS),
                                      ("secure-refuse", 0x30 | NOW)):
                    if profile not in ("secure", "hardened") and maker not in (correct, api_extra):
                        continue
                    many = [step[0] for step in steps].count("MANY") > 6  # more than other programs may have (run_api.c)
                    any_size = profile in ("secure", "hardened", "secure-look") and (many or any(step[0] == "LARGE" for step in steps))
                    with open(os.path.join(out, target, f"{name}-{profile}"), "wb") as f:
                        f.write(assembler.program(target, mode, profile == "secure-look", any_size, *steps))
                    count += 1
    for target, maker in {"options": options, "report": report, "process": process}.items():
        os.makedirs(os.path.join(out, target), exist_ok=True)
        for name, data in maker():
            with open(os.path.join(out, target, name), "wb") as f:
                f.write(data)
            count += 1
    print(f"{count} seeds")


main()
