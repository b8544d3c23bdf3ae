#!/usr/bin/env python3
"""Says which protections work on this kernel and within this process's limits, and
provokes each in a process of its own: the bug must end as it is promised, by its
signal and its violation id, after a mark that says it was about to be committed.

Ends with 0 if everything that this kernel makes possible has fired, with 1 if not.
"""

import argparse
import ctypes
import json
import mmap
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True  # not where it is installed
import doctor_bugs  # noqa: E402
from doctor_bugs import MARK, TESTS  # noqa: E402

MADV_GUARD_INSTALL = 102  # Linux 6.13
MADV_WIPEONFORK = 18
SYS_MSEAL = 462  # Linux 6.10; the same number on every processor
SECONDS = 60

# ------------------------------------------------------------------- the self-test


def environment(library, options=None):
    env = {k: v for k, v in os.environ.items() if options is None or not k.startswith("BULKHEAD_")}
    env["LD_PRELOAD"] = library
    env["PYTHONHASHSEED"] = "0"  # or the interpreter allocates differently each time
    if options is not None:
        # What the configuration file may say is not what is tried.
        env["BULKHEAD_OPTIONS"] = options + ":foreign=abort:guarded_recover=0:report=text:verbose=0"
    return env


def child(command, env):
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def attempt(library, index, guard):
    """(what happened, whether that is what should)"""
    _, _, options, wanted, detail = TESTS[index]
    try:
        command = [sys.executable, "-S", os.path.realpath(doctor_bugs.__file__), str(index)]
        done = child(command, environment(library, options + ":guard=" + guard))
    except (OSError, subprocess.TimeoutExpired) as error:
        return "did not end: %s" % error, False
    by = -done.returncode if done.returncode < 0 else 0
    text = done.stderr.decode("utf-8", "replace")
    found = re.findall(r"^bulkhead: ERROR: ([a-z-]+): ", text, re.M)
    what = ", ".join(([signal.Signals(by).name] if by else ["exit %d" % done.returncode]) + found)
    out = done.stdout
    if not out.startswith(MARK):
        return "ended before it was tried (%s)" % what, False
    out = out[len(MARK):].decode("utf-8", "replace")
    if isinstance(detail, str):
        return out.strip()[:40] or what, done.returncode == 0 and out.split()[:1] == [detail] and not found
    if out:
        return out.strip(), False
    return what, by == wanted and (found[:1] == [] if not detail else found[:1] != [] and found[0] in detail)


def self_test(library, facts, force):
    results = []
    guard = next((o["value"] for o in force["options"] if o["option"] == "guard"), "auto")
    for index, (name, function, _, wanted, detail) in enumerate(TESTS):
        should = signal.Signals(wanted).name if wanted else "ends well"
        if not isinstance(detail, str) and detail:
            should += ", " + " or ".join(detail)
        if function is doctor_bugs.settings and facts["sealing (mseal)"] != "works":
            results.append({"name": name, "wanted": should, "got": "not on this kernel", "ok": None})
            continue
        got, ok = attempt(library, index, guard)
        if function is doctor_bugs.layout and ok:
            ok = got == attempt(library, index, guard)[0]
            got = "the same twice" if ok else "another layout"
        results.append({"name": name, "wanted": should, "got": got, "ok": ok})
    return results


# ------------------------------------------------------------------------- facts


def text_of(path, default="unknown"):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return default


def kernel_call(name, *arguments):
    """Result of a call of libc's, or the name of its error."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = ctypes.c_long
    result = function(*arguments)
    number = ctypes.get_errno()
    return result if result >= 0 else "refused: " + os.strerror(number)


def on_a_page(call):
    """What call(address) says of a fresh anonymous page."""
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    result = call(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(page))))
    KEPT.append(page)
    return result if isinstance(result, str) else "works"


KEPT = []  # pages that may be guarded or sealed: nobody may touch or unmap them


def guard_region(address):
    size = ctypes.c_size_t(mmap.PAGESIZE)
    result = kernel_call("madvise", address, size, MADV_GUARD_INSTALL)
    if not isinstance(result, str) and kernel_call("getrandom", address, ctypes.c_size_t(1), 0) == 1:
        return "accepted and ignored"
    return result


def limit(which):
    soft = resource.getrlimit(which)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def status(key):
    found = re.search("^%s:\\s*(.*)$" % key, text_of("/proc/self/status"), re.M)
    return found[1] if found else "unknown"


def system_facts():
    size = ctypes.c_size_t(mmap.PAGESIZE)
    seccomp = {"0": "none", "1": "strict", "2": "a filter"}
    overcommit = {"0": "heuristic", "1": "always", "2": "strict: what is reserved without access is not counted"}
    sealed = on_a_page(lambda a: kernel_call("syscall", ctypes.c_long(SYS_MSEAL), a, size, ctypes.c_ulong(0)))
    return {
        "kernel": "%s, %s" % (platform.release(), platform.machine()),
        "size of an OS page": str(mmap.PAGESIZE),
        "guard regions (MADV_GUARD_INSTALL)": on_a_page(guard_region),
        "sealing (mseal)": sealed,
        "wiping at fork (MADV_WIPEONFORK)": on_a_page(lambda a: kernel_call("madvise", a, size, MADV_WIPEONFORK)),
        "entropy (getrandom)": "works" if kernel_call("getrandom", ctypes.create_string_buffer(16), ctypes.c_size_t(16), 0) == 16
                               else "refused: AT_RANDOM serves",
        "address space randomisation": text_of("/proc/sys/kernel/randomize_va_space"),
        "mappings (vm.max_map_count)": text_of("/proc/sys/vm/max_map_count"),
        "address space (RLIMIT_AS)": limit(resource.RLIMIT_AS),
        "data (RLIMIT_DATA)": limit(resource.RLIMIT_DATA),
        "locked memory (RLIMIT_MEMLOCK)": limit(resource.RLIMIT_MEMLOCK),
        "overcommit": overcommit.get(text_of("/proc/sys/vm/overcommit_memory"), "unknown"),
        "huge pages": "".join(re.findall(r"\[(\w+)\]", text_of("/sys/kernel/mm/transparent_hugepage/enabled"))) or "none",
        "seccomp": seccomp.get(status("Seccomp"), status("Seccomp")),
        "no new privileges": "yes" if status("NoNewPrivs") == "1" else "no",
        "symboliser": next((t for t in ("llvm-symbolizer", "addr2line") if shutil.which(t)), "none: install llvm or binutils"),
    }


def in_force(library):
    """What the library says of itself, with the environment that there is."""
    env = environment(library)
    env["BULKHEAD_VERBOSE"] = "2"
    done = child([shutil.which("true") or "/bin/true"], env)
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    options, guards, weaker, warnings = [], "unknown: the library was not loaded", [], []
    for line in lines:
        option = re.match(r"bulkhead: option ([a-z_]+)=(.*) \((profile|program|environment|/[^ ]*)\)$", line)
        if option and option[1] != "verbose":
            options.append({"option": option[1], "value": option[2], "from": option[3]})
        elif line.startswith("bulkhead: guards="):
            guards = line.partition("=")[2]
        elif line.startswith("bulkhead: weaker than the default: "):
            weaker.append(line.partition("default: ")[2])
        elif line.startswith(("bulkhead: WARNING", "ERROR: ld.so")):
            warnings.append(line)
    return {"guards": guards, "options": options, "weaker": weaker, "warnings": warnings}


# ----------------------------------------------------------------------------- main


def print_text(library, facts, force, results, everything):
    print("library  %s\n\nThis kernel, and this process's limits" % library)
    for name, value in facts.items():
        print("  %-36s %s" % (name, value))
    print("\nIn force\n  %-36s %s" % ("guards", force["guards"]))
    for o in force["options"]:
        if everything or o["from"] != "profile" or o["option"] == "profile":
            print("  %-36s %-20s from %s" % (o["option"], o["value"] or "none", o["from"]))
    for text in force["weaker"]:
        print("  weaker than the default: %s" % text)
    for text in force["warnings"]:
        print("  %s" % text)
    print("\nSelf-test")
    for r in results:
        print("  %-4s %-38s %s" % ("ok" if r["ok"] else "--" if r["ok"] is None else "FAIL", r["name"], r["got"]))
        if r["ok"] is False:
            print("       wanted: %s" % r["wanted"])
    failed = sum(r["ok"] is False for r in results)
    print("\n%s" % ("%d of %d did not fire" % (failed, len(results)) if failed else "everything that this kernel makes possible has fired"))


def main():
    parser = argparse.ArgumentParser(prog="bulkhead doctor", description="Says which protections of Bulkhead work on this kernel "
                                     "and within this process's limits, which options are in force and where they come from, "
                                     "and provokes each protection in a process of its own. Exit status 0: all have fired.")
    parser.add_argument("--json", action="store_true", help="print all of it as one object")
    parser.add_argument("--options", action="store_true", help="list every option, not only those that somebody has set")
    parser.add_argument("--library", help="the library to look at")
    arguments = parser.parse_args()
    no_core()
    if not arguments.library or not os.access(arguments.library, os.R_OK):
        sys.exit("bulkhead: doctor: there is no library %s" % (arguments.library or ""))
    library = os.path.realpath(arguments.library)
    facts, force = system_facts(), in_force(library)
    results = self_test(library, facts, force)
    ok = all(r["ok"] is not False for r in results) and bool(force["options"])
    if arguments.json:
        print(json.dumps({"library": library, "system": facts, "in_force": force, "tests": results, "ok": ok}))
    else:
        print_text(library, facts, force, results, arguments.options)
    sys.stdout.flush()
    os._exit(0 if ok else 1)  # some pages may not be touched any more, not even by their destructors


if __name__ == "__main__":
    sys.exit(main())
