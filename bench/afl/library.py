#!/usr/bin/env python3
"""A real library with old heap bugs, under plain malloc, AFL++'s libdislocator, Bulkhead's
profile fuzz, and AddressSanitizer: what each says of an input that meets the bug, and with
--seconds what a short campaign of AFL++ finds.

The library is giflib of Debian 12, fetched from Debian's archive. CVE-2026-26740, which
Debian repairs, is let in again by taking that patch back: giftool writes four bytes into
an extension block of the length that the file says. CVE-2022-28506 is in the source as it
is: gif2rgb takes the colour of a pixel from beyond the end of a table.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import compare

PATCH = "CVE-2026-26740.patch"
SOURCES = ["dgif_lib.c", "egif_lib.c", "gifalloc.c", "gif_err.c", "gif_hash.c", "openbsd-reallocarray.c", "quantize.c", "qprintf.c", "getarg.c"]
FLAGS = ["-std=gnu99", "-O2", "-g", "-w", "-fno-builtin-malloc", "-fno-builtin-free"]


def gif(control, pixel, kind=0xf9):
    """A picture of one pixel and two colours, with a graphics control block, or one of another kind."""
    size = (1).to_bytes(2, "little") * 2
    out = b"GIF89a" + size + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    out += bytes([0x21, kind, len(control)]) + control + b"\0"
    codes = 256 | pixel << 9 | 257 << 18  # clear, the pixel, end: nine bits each
    return out + b"\x2c\0\0\0\0" + size + b"\0\x08\4" + codes.to_bytes(4, "little") + b"\0\x3b"


GOOD = gif(b"\0\5\0\0", 1)
SEEDS = [GOOD, gif(b"c", 1, 0xfe)]  # and a comment of one letter
# Program and its arguments, the function that the bug is in, an input that meets it.
BUGS = {
    "CVE-2026-26740, write of 4 bytes to a block of 1": (["giftool", "-d", "5"], "EGifGCBToExtension", gif(b"\0", 1)),
    "CVE-2022-28506, read 759 bytes beyond a block of 6": (["gif2rgb"], "DumpScreen2RGB", gif(b"\0\5\0\0", 255)),
}


def archives():
    """Site and suite of each archive that this system takes packages from."""
    command = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return sorted(set(done.stdout.splitlines()))


def fetch(work):
    """giflib's source with Debian's patches, but one."""
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True)
    (work / "sources.list").write_text("".join("deb-src %s main\n" % place for place in archives()), encoding="ascii")
    options = ["-q", "-o", "Dir::Etc::sourcelist=%s" % (work / "sources.list"), "-o", "Dir::Etc::sourceparts=/dev/null",
               "-o", "Dir::State::lists=%s" % lists, "-o", "APT::Sandbox::User="]
    for command in (["apt-get", *options, "update"], ["apt-get", *options, "source", "giflib"]):
        done = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.exit("library: %s\n%s" % (" ".join(command), done.stdout.decode(errors="replace")[-1000:]))
    source = next(p for p in work.glob("giflib-*") if p.is_dir())
    with open(source / "debian" / "patches" / PATCH, "rb") as patch:
        subprocess.run(["patch", "-R", "-p1", "-s"], cwd=source, stdin=patch, check=True)
    return source


def build(source, work, compiler, *flags, **env):
    work.mkdir()
    for program in sorted({command[0] for command, _, _ in BUGS.values()}):
        subprocess.run([compiler, *FLAGS, *flags, "-o", str(work / program), *SOURCES, program + ".c"], cwd=source, check=True,
                       env={**os.environ, "AFL_QUIET": "1", **env})
    return work


def subjects(source, work, library, fuzzed):
    compiler = "afl-clang-fast" if fuzzed else "gcc"
    plain = build(source, work / "plain", compiler)
    asan = build(source, work / "asan", compiler, *([] if fuzzed else ["-fsanitize=address"]), **({"AFL_USE_ASAN": "1"} if fuzzed else {}))
    out = {"plain": (plain, {})}
    dislocator = next((p for p in compare.DISLOCATOR if os.path.exists(p)), None)
    if dislocator:
        out["libdislocator"] = (plain, {"preload": dislocator})
    out["bulkhead"] = (plain, {"preload": library, "BULKHEAD_PROFILE": "fuzz"})
    out["asan"] = (asan, {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0:symbolize=%d" % (not fuzzed)})
    return out


def run(folder, settings, command, document, **more):
    env = {**compare.environment(settings, "LD_PRELOAD"), **more}
    return subprocess.run([str(folder / command[0]), *command[1:]], env=env, input=document, capture_output=True, check=False)


def told(done):
    """How a run ended, and what the allocator said of it."""
    text = done.stderr.decode(errors="replace")
    end = "exit %d" % done.returncode if done.returncode >= 0 else signal.Signals(-done.returncode).name
    first = re.search(r"ERROR: (?:AddressSanitizer: )?([a-z-]+)", text)
    where = re.search(r"the address is ([^\n]*)|(located \d+ bytes [^\n\[]*)", text)
    return ", ".join(part for part in (end, first and first[1], where and (where[1] or where[2].strip())) if part)


def confirmed(folder, command, function, crashes):
    """Whether AddressSanitizer sees that bug in one of the saved inputs."""
    for crash in crashes:
        done = run(folder, {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0"}, command, crash.read_bytes())
        if done.returncode < 0 and re.search(rb"#[0-3] [^\n]* in " + function.encode(), done.stderr):
            return True
    return False


def campaigns(source, work, library, witness, seconds, runs, only):
    print("\n| campaign of %d s | run | executions a second | the bug | crashes saved |\n|---|---|---|---|---|" % seconds)
    (work / "afl").mkdir()
    instrumented = subjects(source, work / "afl", library, True)
    for seed in range(1, runs + 1):
        for name, (folder, settings) in instrumented.items():
            for number, (bug, (command, function, _)) in enumerate((b, c) for b, c in BUGS.items() if only in b):
                place = work / ("%s-%d-%d" % (name, number, seed))
                speed = compare.campaign(place, [str(folder / command[0]), *command[1:]], settings, seconds, seed, SEEDS)
                crashes = sorted((place / "out" / "default" / "crashes").glob("id:*"))
                found = "found" if confirmed(witness, command, function, crashes) else ""
                print("| %s, %s | %d | %.0f | %s | %d |" % (bug.split(",")[0], name, seed, speed, found, len(crashes)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="libbulkhead.so")
    parser.add_argument("--seconds", type=int, default=0, help="of each campaign; none unless told")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--bug", default="", help="campaigns for the bugs of this name only")
    arguments = parser.parse_args()
    for tool in ("apt-get", "dpkg-source", "patch", "gcc") + (("afl-fuzz", "afl-clang-fast") if arguments.seconds else ()):
        if not shutil.which(tool):
            sys.exit("library: there is no %s (Debian: dpkg-dev, patch, gcc, afl++)" % tool)
    library = os.path.realpath(arguments.library)
    failed = False
    with tempfile.TemporaryDirectory(prefix="bulkhead-gif.") as folder:
        work = pathlib.Path(folder)
        source = fetch(work)
        (work / "gcc").mkdir()
        plainly = subjects(source, work / "gcc", library, False)
        print("| given the input | %s |" % " | ".join(plainly))
        print("|---|" + "---|" * len(plainly))
        for bug, (command, _, document) in BUGS.items():
            ends = {name: run(*subject, command, document) for name, subject in plainly.items()}
            print("| %s | %s |" % (bug, " | ".join(told(done) for done in ends.values())), flush=True)
            failed = failed or ends["bulkhead"].returncode != -signal.SIGABRT
            for name, subject in plainly.items():
                good = run(*subject, command, GOOD)
                if good.returncode != 0:
                    print("FAIL %s: a good picture: %s" % (name, told(good)))
                    failed = True
        if arguments.seconds:
            campaigns(source, work, library, plainly["asan"][0], arguments.seconds, arguments.runs, arguments.bug)
    sys.exit(failed)


if __name__ == "__main__":
    main()
