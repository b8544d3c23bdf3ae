#!/usr/bin/env python3
"""Renews the corpus: fuzz/corpus/TARGET.tar.gz, which the build unpacks beside the seeds.

    corpus.py ROOT [FINDINGS]... [--only TARGET]

Of the inputs that are there already and of the queues in FINDINGS/TARGET/default/queue
(AFL++'s output, build-fuzz/findings for one) it keeps a small selection that covers what
all of them do and the seeds alone do not: edges of the harness as build-fuzz has it, with
how often each was taken, in AFL++'s eight steps. Of those that do the same it prefers the
quick ones.
"""
import hashlib
import heapq
import os
import re
import subprocess
import sys
import tarfile
import tempfile

TARGETS = ("api", "inband", "badfree", "control", "arith", "options", "report", "process")
MOST = 1024  # bytes of an input


def files_of(folder):
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith((".", "corpus-")):
                with open(os.path.join(at, name), "rb") as f:
                    yield f.read()


def kept(archive):
    if os.path.exists(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                yield tar.extractfile(member).read()


def covered(program, inputs):
    """What each input covers, as a set."""
    with tempfile.TemporaryDirectory() as work:
        os.mkdir(f"{work}/in")
        for number, data in enumerate(inputs):
            with open(f"{work}/in/{number}", "wb") as f:
                f.write(data)
        subprocess.run(["afl-showmap", "-q", "-t", "500", "-i", f"{work}/in", "-o", f"{work}/out", "--", program], check=True, stdout=subprocess.DEVNULL)
        for number in range(len(inputs)):
            try:
                with open(f"{work}/out/{number}", encoding="ascii") as f:
                    yield frozenset(f.read().split())
            except FileNotFoundError:  # it took too long
                yield frozenset()


def costs(replay, inputs):
    """What each input costs a campaign: its bytes, and as many for each half microsecond."""
    with tempfile.TemporaryDirectory() as work:
        for number, data in enumerate(inputs):
            with open(f"{work}/{number}", "wb") as f:
                f.write(data)
        said = subprocess.run([replay, "-v", "-n", "5", work], check=True, stdout=subprocess.PIPE, text=True).stdout
    took = {int(number): int(us) for number, us in re.findall(rf"^{work}/([0-9]+): ([0-9]+) us", said, re.MULTILINE)}
    return [64 + len(data) + 2 * took[i] for i, data in enumerate(inputs)]


def select(inputs, covers, cost, have):
    """The input with the most that is new for its cost, again and again."""
    def worth(i):
        return len(covers[i] - have) / cost[i]
    chosen = []
    heap = [(-worth(i), i) for i in range(len(inputs))]
    heapq.heapify(heap)
    while heap:
        _, i = heapq.heappop(heap)
        now = worth(i)
        if now == 0:
            continue
        if heap and -now > heap[0][0]:
            heapq.heappush(heap, (-now, i))
            continue
        have |= covers[i]
        chosen.append(inputs[i])
    return chosen


def pack(folder, out):
    """The same bytes for the same inputs."""
    tar = subprocess.run(["tar", "--format=ustar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=644",
                          "-C", folder, "-c"] + sorted(os.listdir(folder)), check=True, stdout=subprocess.PIPE).stdout
    data = subprocess.run(["gzip", "-9n"], input=tar, check=True, stdout=subprocess.PIPE).stdout
    with open(out, "wb") as f:
        f.write(data)
    return len(data)


def main():
    root, findings, targets = sys.argv[1], sys.argv[2:], TARGETS
    if "--only" in findings:
        at = findings.index("--only")
        targets, findings = findings[at + 1:at + 2], findings[:at] + findings[at + 2:]
    build = f"{root}/build-fuzz/fuzz"
    os.makedirs(f"{root}/fuzz/corpus", exist_ok=True)
    for target in targets:
        out = f"{root}/fuzz/corpus/{target}.tar.gz"
        seeds = {*files_of(f"{build}/seeds/{target}"), *files_of(f"{root}/fuzz/regressions/{target}")}
        new = {*kept(out), *(data for folder in findings for data in files_of(f"{folder}/{target}/default/queue"))} - seeds
        seeds, new = sorted(seeds), sorted(data for data in new if len(data) <= MOST)
        program = f"{build}/fuzz-afl-{target}"
        replay = f"{build}/fuzz-replay-{target}"
        cost = [64 + len(data) for data in new] if target in ("options", "report", "process") else costs(replay, new)
        chosen = select(new, list(covered(program, new)), cost, set().union(*covered(program, seeds)))
        with tempfile.TemporaryDirectory() as work:
            for data in chosen:
                with open(f"{work}/corpus-{hashlib.sha256(data).hexdigest()[:12]}", "wb") as f:
                    f.write(data)
            subprocess.run([replay] + ([] if target == "process" else ["-d"]) + [work], check=True, stdout=subprocess.DEVNULL)
            size = pack(work, out)
        print(f"{target}: {len(chosen)} of {len(new)} inputs, {size} bytes", flush=True)


main()
