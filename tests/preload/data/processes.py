"""Children by subprocess, fork (also of a process with threads) and spawn."""
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading

SCALE = int(sys.argv[1])


def work(n):
    items = [str(i) * (i % 17) for i in range(n % 5_000)]
    items.sort()
    return n, hashlib.sha256("".join(items).encode()).hexdigest()


def pool(method):
    with multiprocessing.get_context(method).Pool(3) as workers:
        results = workers.map(work, range(0, 30_000 * SCALE, 97), chunksize=20)
    return hashlib.sha256(repr(results).encode()).hexdigest()


def commands():
    out = []
    for i in range(15 * SCALE):
        child = subprocess.run(
            [sys.executable, "-c", "import sys; print(len(sys.stdin.read())); sys.exit(%d)" % (i % 4)],
            input="z" * (1000 * i), capture_output=True, text=True)
        out.append((child.returncode, child.stdout, child.stderr))
    return out


def fork_with_threads():
    """Forks while other threads allocate; the child allocates and frees."""
    stop = threading.Event()

    def churn():
        keep = []
        while not stop.is_set():
            keep.append(bytearray(1 + len(keep) * 37 % 9_000))
            if len(keep) > 500:
                del keep[:]

    others = [threading.Thread(target=churn) for _ in range(3)]
    for thread in others:
        thread.start()
    statuses = []
    for _ in range(40 * SCALE):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if len(work(4_000)[1]) == 64 and len([bytes(i) for i in range(3_000)]) == 3_000 else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.set()
    for thread in others:
        thread.join()
    return statuses


if __name__ == "__main__":
    print("commands", commands())
    print("fork", pool("fork"))
    print("spawn", pool("spawn"))
    print("fork_with_threads", fork_with_threads())
