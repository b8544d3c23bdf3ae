#!/usr/bin/env python3
"""Turns module + offset in reports into functions, files and lines.

A report is untrusted: it may come from a machine under attack, and names files. So
no text of it reaches a shell or becomes an option, only absolute paths of regular
files are opened, and a file counts only if its build id is the one that the report
names. What is printed has no control characters, and what one line can cost is
bounded. The files are read by this script for their build id, and by the symboliser.
"""

import argparse
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib

LINE_MOST = 1 << 20  # characters; what is longer is passed on without a look
FRAMES_MOST = 4096  # looked up in one report
TOOL_SECONDS = 60
NOTES_MOST = 1 << 16  # bytes of a file's notes that are read
DEBUG_MOST = 4 << 30  # bytes of a debug file of which a checksum is made
NT_GNU_BUILD_ID = 3

LOCATION = re.compile(r"(?P<module>/.*)\+0x(?P<offset>[0-9a-f]{1,16})(?: \(build id (?P<id>[0-9a-f]{2,64})\))?")
FRAME = re.compile(r"bulkhead:     #(?P<number>[0-9]{1,4}) " + LOCATION.pattern)
STACKS = ("stack", "alloc_stack", "free_stack")


def printable(text):
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)


# ------------------------------------------------------------------------------ ELF


class NotElf(Exception):
    pass


def open_regular(path):
    """A regular file, or an OSError; never waits, whatever is there."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("not a regular file")
    return os.fdopen(fd, "rb")


class Elf:
    """What of an ELF file leads to its debug file: build id and debug link."""

    def __init__(self, path):
        self.build_id = ""
        self.link = None
        with open_regular(path) as file:
            self.file = file
            try:
                self._read()
            except struct.error as error:
                raise NotElf(str(error)) from error

    def _at(self, offset, size):
        self.file.seek(offset)
        data = self.file.read(size)
        if len(data) != size:
            raise NotElf("ends early")
        return data

    def _read(self):
        head = self._at(0, 16)
        if head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
            raise NotElf("no ELF file")
        wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
        if wide:
            offset, = struct.unpack(order + "Q", self._at(40, 8))
            size, count, names = struct.unpack(order + "HHH", self._at(58, 6))
            layout = order + "IIQQQQIIQQ"
        else:
            offset, = struct.unpack(order + "I", self._at(32, 4))
            size, count, names = struct.unpack(order + "HHH", self._at(46, 6))
            layout = order + "IIIIIIIIII"
        if size < struct.calcsize(layout) or names >= count or offset > 1 << 48:
            return
        sections = [struct.unpack_from(layout, self._at(offset + i * size, size)) for i in range(count)]
        strings = self._at(sections[names][4], min(sections[names][5], NOTES_MOST))
        for name, kind, _, _, at, length, _, _, _, _ in sections:
            title = strings[name:strings.find(b"\0", name)] if name < len(strings) else b""
            if at > 1 << 48 or length > NOTES_MOST:
                continue
            if kind == 7:  # SHT_NOTE
                self._notes(self._at(at, length), order)
            elif title == b".gnu_debuglink" and kind != 8:
                self._link(self._at(at, length), order)

    def _notes(self, data, order):
        at = 0
        while at + 12 <= len(data):
            name, size, kind = struct.unpack_from(order + "III", data, at)
            start = at + 12 + (name + 3 & ~3)
            if kind == NT_GNU_BUILD_ID and data[at + 12:at + 12 + name] == b"GNU\0" and not self.build_id:
                self.build_id = data[start:start + size].hex()
            at = start + (size + 3 & ~3)

    def _link(self, data, order):
        name = data[:data.find(b"\0")]
        if name and b"/" not in name and len(data) >= 4:
            self.link = os.fsdecode(name), struct.unpack(order + "I", data[-4:])[0]


def same_build(wanted, have):
    """The report cuts build ids at 20 bytes."""
    return bool(wanted) and (have == wanted or len(wanted) == 40 and have.startswith(wanted))


def checksum(path):
    crc = 0
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > DEBUG_MOST:
            return None
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


# --------------------------------------------------------------------- debug files


class Finder:
    """The file that has the symbols of a module."""

    def __init__(self, root, debug_dirs):
        self.root = root
        self.debug_dirs = debug_dirs
        self.known = {}

    def find(self, module, build_id):
        """(file, None), or (None, why not)."""
        key = module, build_id
        if key not in self.known:
            self.known[key] = self._find(module, build_id)
        return self.known[key]

    def _find(self, module, build_id):
        by_id = self._by_build_id(build_id)
        if by_id:
            return by_id, None
        path = self.root + module
        try:
            elf = Elf(path)
        except (OSError, ValueError, NotElf):
            return None, "no such file here"
        if build_id and not same_build(build_id, elf.build_id):
            return None, "the file here is of another build"
        return self._by_build_id(elf.build_id) or self._by_link(path, elf) or path, None

    def _by_build_id(self, build_id):
        for directory in self.debug_dirs if len(build_id) >= 4 else []:
            path = os.path.join(directory, ".build-id", build_id[:2], build_id[2:] + ".debug")
            try:
                if same_build(build_id, Elf(path).build_id):
                    return path
            except (OSError, NotElf):
                pass
        return None

    def _by_link(self, path, elf):
        if elf.link is None:
            return None
        name, crc = elf.link
        folder = os.path.dirname(os.path.realpath(path))
        for candidate in [folder, os.path.join(folder, ".debug")] + [d + folder for d in self.debug_dirs]:
            candidate = os.path.join(candidate, name)
            try:
                if checksum(candidate) == crc:
                    return candidate
            except OSError:
                pass
        return None


# ---------------------------------------------------------------------- symbolisers


def run(command):
    # Nothing is to be fetched from a network for what a report says.
    env = {k: v for k, v in os.environ.items() if k not in ("DEBUGINFOD_URLS", "LD_PRELOAD") and not k.startswith("BULKHEAD_")}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=TOOL_SECONDS, env=env, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def place(function, file, line):
    """One of the frames at an address, innermost first; None: nothing is known."""
    known = [None if not part or part.startswith("??") else printable(part) for part in (function, file)]
    return (*known, line if known[1] else 0) if any(known) else None


def by_llvm(tool, path, offsets):
    """{offset: frames}"""
    out = {}
    text = run([tool, "--output-style=JSON", "--inlines", "--demangle", "--obj=" + path] + [hex(o) for o in offsets])
    for line in text.splitlines():
        try:
            found = json.loads(line)
            for one in found if isinstance(found, list) else [found]:
                frames = [place(s["FunctionName"], s["FileName"], int(s["Line"])) for s in one.get("Symbol", [])]
                out[int(one["Address"], 16)] = [f for f in frames if f]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return out


def is_address(line, offset):
    return offset is not None and re.fullmatch("0x0*%x" % offset, line) is not None


def by_addr2line(tool, path, offsets):
    """With -a each answer begins with its address; then come pairs of lines."""
    out = {}
    lines = run([tool, "-a", "-f", "-i", "-C", "-e", path] + [hex(o) for o in offsets]).splitlines()
    at = 0
    for offset, behind in zip(offsets, offsets[1:] + [None]):
        if at >= len(lines) or not is_address(lines[at], offset):
            break
        at += 1
        frames = []
        while at + 1 < len(lines) and not is_address(lines[at], behind):
            file, _, line = lines[at + 1].partition(" (discriminator")[0].rpartition(":")
            frames.append(place(lines[at], file, int(line) if line.isdigit() else 0))
            at += 2
        out[offset] = [f for f in frames if f]
    return out


def symboliser(wanted):
    names = {"llvm": ["llvm-symbolizer"] + ["llvm-symbolizer-%d" % v for v in range(22, 13, -1)], "addr2line": ["addr2line"]}
    for kind in names if wanted == "auto" else [wanted]:
        for name in names[kind]:
            tool = shutil.which(name)
            if tool:
                return lambda path, offsets, t=tool, f=by_llvm if kind == "llvm" else by_addr2line: f(t, path, offsets)
    return None


# ------------------------------------------------------------------------- reports


class Symbolizer:
    def __init__(self, finder, look_up):
        self.finder = finder
        self.look_up = look_up
        self.known = {}  # (file, offset): frames

    def learn(self, locations):
        """Looks up all of them, with one run for each file."""
        wanted = {}
        for module, offset, build_id in locations[:FRAMES_MOST]:
            path, _ = self.finder.find(module, build_id)
            if path is not None and (path, offset) not in self.known:
                wanted.setdefault(path, set()).add(offset)
        for path, offsets in wanted.items():
            offsets = sorted(offsets)
            for i in range(0, len(offsets), 256):
                part = offsets[i:i + 256]
                found = self.look_up(path, part)
                for offset in part:
                    self.known[path, offset] = found.get(offset, [])

    def frames(self, module, offset, build_id):
        """(frames, innermost first, or none; why none)"""
        path, why = self.finder.find(module, build_id)
        return self.known.get((path, offset), []), why


def location(match):
    return match["module"], int(match["offset"], 16), match["id"] or ""


def where(frame):
    function, file, line = frame
    text = function or "(no function)"
    if file:
        text += " at " + file + (":%d" % line if line else "")
    return text


def text_lines(symbols, match, line):
    """A frame's line, or more where calls were inlined."""
    module, offset, build_id = location(match)
    frames, why = symbols.frames(module, offset, build_id)
    if not frames:
        return [line + (" [%s]" % why if why else "")]
    start = "bulkhead:     #%s " % match["number"]
    out = [start + where(f) + ", inlined" for f in frames[:-1]]
    return out + [start + where(frames[-1]) + " (%s+0x%x)" % (module, offset)]


def json_frame(symbols, text):
    match = LOCATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return text
    module, offset, build_id = location(match)
    frames, why = symbols.frames(module, offset, build_id)
    out = {"module": module, "offset": hex(offset), "build_id": build_id}
    out["frames"] = [{"function": f, "file": p, "line": n} for f, p, n in frames]
    if why and not frames:
        out["why"] = why
    return out


def json_line(symbols, line):
    """The line with its stacks replaced, or None if it is no report."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or "bulkhead" not in report:
        return None
    lists = {k: report[k][:FRAMES_MOST] for k in STACKS if isinstance(report.get(k), list)}
    matches = [LOCATION.fullmatch(t) for texts in lists.values() for t in texts if isinstance(t, str)]
    symbols.learn([location(m) for m in matches if m])
    for key, texts in lists.items():
        report[key] = [json_frame(symbols, t) for t in texts]
    try:
        return json.dumps(report)
    except (ValueError, RecursionError):
        return None


def read_lines(file):
    """Lines without their ends, in pieces if they are too long; True: a whole line."""
    while data := file.readline(LINE_MOST):
        text = data.decode("utf-8", "replace")
        yield text.rstrip("\r\n"), text.endswith("\n") or len(data) < LINE_MOST


def symbolize(file, out, symbols):
    """Frames wait until their stack has ended, so that each file is looked up once."""
    waiting = []

    def flush():
        symbols.learn([location(m) for m, _ in waiting])
        for match, line in waiting:
            out.write("\n".join(text_lines(symbols, match, line)) + "\n")
        waiting.clear()

    for line, whole in read_lines(file):
        line = printable(line)
        match = FRAME.fullmatch(line) if whole else None
        if match and len(waiting) < FRAMES_MOST:
            waiting.append((match, line))
            continue
        flush()
        replaced = json_line(symbols, line) if whole and line.startswith('{"bulkhead"') else None
        out.write(line if replaced is None else replaced)
        out.write("\n" if whole else "")
        out.flush()
    flush()


def main():
    parser = argparse.ArgumentParser(prog="bulkhead symbolize", description="Prints a report of Bulkhead, as text or JSON, "
                                     "with functions, files and lines in its stacks. All else is passed on.")
    parser.add_argument("file", nargs="?", default="-", help="the report; standard input if none, or '-'")
    parser.add_argument("--tool", choices=["auto", "llvm", "addr2line"], default="auto", help="llvm-symbolizer, or addr2line")
    parser.add_argument("--root", default="", metavar="DIR", help="where the files of the report lie on this machine")
    parser.add_argument("--debug-dir", action="append", metavar="DIR",
                        help="where separate debug files lie, beside /usr/lib/debug; may be repeated")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")
    look_up = symboliser(arguments.tool)
    if look_up is None:
        sys.exit("bulkhead: symbolize: there is no llvm-symbolizer and no addr2line (Debian: llvm, binutils)")
    debug_dirs = (arguments.debug_dir or []) + [arguments.root + "/usr/lib/debug"]
    symbols = Symbolizer(Finder(arguments.root.rstrip("/"), debug_dirs), look_up)
    try:
        with sys.stdin.buffer if arguments.file == "-" else open(arguments.file, "rb") as file:
            symbolize(file, sys.stdout, symbols)
    except BrokenPipeError:
        os._exit(1)  # nobody reads on; no complaint at exit
    except OSError as error:
        sys.exit("bulkhead: symbolize: %s" % error)


if __name__ == "__main__":
    main()
