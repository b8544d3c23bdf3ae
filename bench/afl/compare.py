#!/usr/bin/env python3
"""What AFL++ finds in parser.c in a short time, and at how many executions a second:
plain, with AFL++'s libdislocator, with Bulkhead's profile fuzz, and built with
AddressSanitizer. Same seeds for all of a round; a bug is found when a crash that AFL++
saved commits it last, run once more in the same way.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BUGS = 12
SEEDS = [b"N\0\x20D\0xS\0x0123456789abcdef", b"I\0\1T  a             xB  b             xG+x+x", b"M\2\2F\x40O\0\1V\1x"]
DISLOCATOR = ["/usr/lib/afl/libdislocator.so", "/usr/local/lib/afl/libdislocator.so"]


def build(work, name, *flags, **env):
    target = work / name
    subprocess.run(["afl-clang-fast", "-O1", "-fno-builtin", *flags, "-o", str(target), str(HERE / "parser.c")], check=True,
                   env={**os.environ, "AFL_QUIET": "1", **env})
    return str(target)


def subjects(work, library, persistent):
    flags = ["-DPERSISTENT", "-Wno-gnu-statement-expression"] if persistent else []
    plain = build(work, "plain", *flags)
    out = {"plain": (plain, {})}
    dislocator = next((p for p in DISLOCATOR if os.path.exists(p)), None)
    if dislocator:
        out["libdislocator"] = (plain, {"preload": dislocator})
    out["bulkhead"] = (plain, {"preload": library, "BULKHEAD_PROFILE": "fuzz"})
    asan = build(work, "asan", *flags, AFL_USE_ASAN="1")
    out["asan"] = (asan, {"ASAN_OPTIONS": "abort_on_error=1:symbolize=0:detect_leaks=0"})
    return out


def environment(settings, preload_as):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("BULKHEAD_", "ASAN_", "LD_PRELOAD"))}
    for key, value in settings.items():
        env[preload_as if key == "preload" else key] = value
    return env


def campaign(work, command, settings, seconds, seed, seeds):
    """Executions a second of a command that reads its input; what it saved stays in the folder."""
    env = environment(settings, "AFL_PRELOAD")
    env.update(AFL_SKIP_CPUFREQ="1", AFL_NO_AFFINITY="1", AFL_NO_UI="1", AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES="1", AFL_FAST_CAL="1")
    fuzzer = ["afl-fuzz", "-i", str(work / "seeds"), "-o", str(work / "out"), "-V", str(seconds), "-s", str(seed), "--", *command]
    (work / "seeds").mkdir(parents=True)
    for number, text in enumerate(seeds):
        (work / "seeds" / str(number)).write_bytes(text)
    with open(work / "log", "wb") as log:
        subprocess.run(fuzzer, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=seconds + 120, check=False)
    stats = work / "out" / "default" / "fuzzer_stats"
    if not stats.exists():
        sys.exit("compare: afl-fuzz did not run:\n" + (work / "log").read_text(errors="replace")[-2000:])
    return float(re.search(r"execs_per_sec *: *([0-9.]+)", stats.read_text())[1])


def triage(work, target, settings):
    """The bugs that the saved crashes end with."""
    env = environment(settings, "LD_PRELOAD")
    env["PLANTED_FD"] = "1"
    found = set()
    for crash in sorted((work / "out" / "default" / "crashes").glob("id:*")):
        with open(crash, "rb") as document:
            done = subprocess.run([target], env=env, stdin=document, capture_output=True, check=False)
        told = re.findall(rb"planted ([0-9]+)", done.stdout)
        if told and done.returncode < 0:
            found.add(int(told[-1]))
    return found


def one(work, name, subject, seconds, seed):
    target, settings = subject
    folder = work / ("%s-%d" % (name, seed))
    return name, seed, campaign(folder, [target], settings, seconds, seed, SEEDS), triage(folder, target, settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", help="libbulkhead.so")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="campaigns at a time; more than processors falsify the executions")
    parser.add_argument("--persistent", action="store_true", help="persistent mode, not a process for each input")
    arguments = parser.parse_args()
    if not shutil.which("afl-fuzz"):
        sys.exit("compare: there is no afl-fuzz (Debian: afl++)")
    with tempfile.TemporaryDirectory(prefix="bulkhead-afl.") as folder:
        work = pathlib.Path(folder)
        all_subjects = subjects(work, os.path.realpath(arguments.library), arguments.persistent)
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            tasks = [pool.submit(one, work, name, subject, arguments.seconds, seed)
                     for seed in range(1, arguments.runs + 1) for name, subject in all_subjects.items()]
            results = [task.result() for task in tasks]
    print("%-14s %4s %12s %6s  %s" % ("", "run", "executions/s", "bugs", "which"))
    for name in all_subjects:
        for _, seed, speed, found in sorted(r for r in results if r[0] == name):
            print("%-14s %4d %12.0f %3d/%d  %s" % (name, seed, speed, len(found), BUGS, " ".join(map(str, sorted(found)))), flush=True)


if __name__ == "__main__":
    main()
