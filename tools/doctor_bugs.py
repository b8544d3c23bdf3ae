"""The bugs that doctor.py commits, each in a process of its own, and what must become
of them.

Sizes are such that the interpreter has no use for them: nobody takes a freed block in
between.
"""

import ctypes
import mmap
import os
import re
import signal
import sys

MARK = b"about to\n"  # printed right before the bug


class Library:
    """The allocator, called past Python's own."""

    def __init__(self):
        every = ctypes.CDLL(None, use_errno=True)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        kinds = {"malloc": (pointer, [size]), "free": (None, [pointer]), "realloc": (pointer, [pointer, size]),
                 "bh_usable_size": (size, [pointer]), "bh_free_sized": (None, [pointer, size]), "bh_heap_new": (pointer, []),
                 "bh_heap_delete": (None, [pointer]), "bh_heap_malloc": (pointer, [pointer, size]), "bh_verify": (size, [])}
        for name, (result, arguments) in kinds.items():
            function = getattr(every, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("bh_"), function)


def write(address, value=0x41, count=1):
    ctypes.memset(address, value, count)


def change(address):
    """Another value than what is there: who writes the same changes nothing."""
    write(address, ctypes.string_at(address, 1)[0] ^ 0xff)


def read(address):
    return ctypes.string_at(address, 1)


def mark():
    os.write(1, MARK)


def say(text):
    os.write(1, (text + "\n").encode())


def freed(lib, size):
    p = lib.malloc(size)
    lib.free(p)
    return p


def double_free(lib):
    p = freed(lib, 7000)
    mark()
    lib.free(p)


def free_inside(lib):
    p = lib.malloc(7000)
    mark()
    lib.free(p + 16)


def free_misaligned(lib):
    p = lib.malloc(7000)
    mark()
    lib.free(p + 3)


def free_foreign(lib):
    there = mmap.mmap(-1, 8192)
    address = ctypes.addressof(ctypes.c_char.from_buffer(there))
    mark()
    lib.free(address)


def realloc_freed(lib):
    p = freed(lib, 7000)
    mark()
    lib.realloc(p, 20)


def query_freed(lib):
    p = freed(lib, 7000)
    mark()
    lib.usable_size(p)


def wrong_size(lib):
    p = lib.malloc(7000)
    mark()
    lib.free_sized(p, 40)


def ended_heap(lib):
    heap = lib.heap_new()
    lib.heap_delete(heap)
    mark()
    lib.heap_malloc(heap, 100)


def runs_on(lib):
    p = lib.malloc(7000)
    mark()
    for step in range(0, 1 << 18, 4096):  # the span of a page, and far more
        read(p + step)
        if step == 1 << 16:
            say("went past the page")


def behind_large(lib):
    p = lib.malloc(300000)
    end = (p + 300000 + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
    read(end - 1)
    mark()
    read(end)


def freed_large(lib):
    p = lib.malloc(1 << 20)
    write(p)
    lib.free(p)
    mark()
    read(p)


def zero_size(lib):
    p = lib.malloc(0)
    mark()
    write(p)


def settings(_):
    for address in sealed_mappings():
        mark()
        write(address)


def sealed_mappings():
    """Read-only and sealed, of no name, or of the library: not the kernel's own."""
    start, name = None, ""
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as smaps:
        for line in smaps:
            head = re.match(r"([0-9a-f]+)-[0-9a-f]+ r--p \S+ \S+ \S+ *(.*)$", line)
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                start, name = (int(head[1], 16), head[2]) if head else (None, "")
            elif line.startswith("VmFlags:") and " sl" in line and start is not None and (not name or "bulkhead" in name):
                yield start


def over_by_one(lib):
    p = lib.malloc(7000)
    change(p + 7000)
    mark()
    lib.free(p)


def under_by_one(lib):
    blocks = sorted(lib.malloc(7000) for _ in range(30))
    apart = min(b - a for a, b in zip(blocks, blocks[1:]))
    p = next(b for a, b in zip(blocks, blocks[1:]) if b - a == apart)  # behind a live one
    change(p - 1)
    mark()
    lib.free(p)


def written_freed(lib):
    p = freed(lib, 7000)
    write(p + 100)
    mark()
    lib.verify()


def reads_zero(lib):
    p = lib.malloc(7000)
    write(p, 0x41, 7000)
    lib.free(p)
    mark()
    say("zero" if ctypes.string_at(p, 7000) == bytes(7000) else "not zero")


def guarded_freed(lib):
    p = freed(lib, 7000)
    mark()
    read(p + 100)


def placed(lib, at_end):
    """A guarded block at the end of its slot, or at its start."""
    for _ in range(1000):
        p = lib.malloc(7008)
        if (p + (7008 if at_end else 0)) % mmap.PAGESIZE == 0:
            return p
    raise RuntimeError("no such block")


def guarded_over(lib):
    p = placed(lib, True)
    mark()
    read(p + 7008)


def guarded_under(lib):
    p = placed(lib, False)
    mark()
    read(p - 1)


def guarded_slack(lib):
    p = placed(lib, False)
    change(p + 7008)
    mark()
    lib.free(p)


def same_size_moves(lib):
    p = lib.malloc(7000)
    lib.realloc(p, 7000)
    mark()
    read(p)


def over_the_cap(lib):
    mark()
    lib.malloc((1 << 30) + 1)


def layout(lib):
    mark()
    say("layout " + " ".join(hex(lib.malloc(n * 1000)) for n in range(1, 20)))


SECURE, HARDENED, FUZZ = "profile=secure", "profile=hardened:guarded_first=0", "profile=fuzz"
GUARDED = "profile=secure:guarded_sample_rate=1:guarded_handler=on"

# name, what is tried, options, signal, violation ids; or a line that must be printed
TESTS = [
    ("double free", double_free, SECURE, signal.SIGABRT, ("double-free",)),
    ("free inside a block", free_inside, SECURE, signal.SIGABRT, ("invalid-free",)),
    ("free of a misaligned address", free_misaligned, SECURE, signal.SIGABRT, ("invalid-free",)),
    ("free of foreign memory", free_foreign, SECURE, signal.SIGABRT, ("foreign-free",)),
    ("realloc of a freed block", realloc_freed, SECURE, signal.SIGABRT, ("realloc-after-free",)),
    ("size of a freed block", query_freed, SECURE, signal.SIGABRT, ("query-after-free",)),
    ("sized free, wrong size", wrong_size, SECURE, signal.SIGABRT, ("size-mismatch",)),
    ("heap used after its end", ended_heap, SECURE, signal.SIGABRT, ("heap-misuse",)),
    ("overflow out of a page of blocks", runs_on, SECURE, signal.SIGSEGV, ()),
    ("overflow of a large block", behind_large, SECURE, signal.SIGSEGV, ()),
    ("read of a freed large block", freed_large, SECURE, signal.SIGSEGV, ()),
    ("write to a block of no bytes", zero_size, SECURE, signal.SIGSEGV, ()),
    ("write to the settings", settings, SECURE, signal.SIGSEGV, ()),
    ("hardened: overflow by one byte", over_by_one, HARDENED, signal.SIGABRT, ("overflow",)),
    ("hardened: underflow by one byte", under_by_one, HARDENED, signal.SIGABRT, ("underflow",)),
    ("hardened: write to a freed block", written_freed, HARDENED, signal.SIGABRT, ("write-after-free",)),
    ("hardened: freed blocks read zero", reads_zero, HARDENED, 0, "zero"),
    ("guarded: use after free", guarded_freed, GUARDED, signal.SIGSEGV, ("use-after-free",)),
    ("guarded: double free", double_free, GUARDED, signal.SIGABRT, ("double-free",)),
    ("guarded: overflow by one byte", guarded_over, GUARDED, signal.SIGSEGV, ("guard-overflow",)),
    ("guarded: underflow by one byte", guarded_under, GUARDED, signal.SIGSEGV, ("guard-underflow",)),
    ("guarded: overflow away from the guard", guarded_slack, GUARDED, signal.SIGABRT, ("overflow",)),
    ("fuzz: use after free", guarded_freed, FUZZ, signal.SIGABRT, ("use-after-free",)),
    ("fuzz: use after realloc", same_size_moves, FUZZ, signal.SIGABRT, ("use-after-free",)),
    ("fuzz: allocation cap", over_the_cap, FUZZ + ":alloc_cap_abort=1", signal.SIGABRT, ("allocation-cap",)),
    ("fuzz: same seed, same layout", layout, FUZZ, 0, "layout"),
]

if __name__ == "__main__":
    TESTS[int(sys.argv[1])][1](Library())
