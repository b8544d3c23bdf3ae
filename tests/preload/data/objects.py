"""Churns objects of many sizes in one process and prints digests of the results.

Everything printed is the same in every run: the random numbers are seeded and
the results of threads are put in order.
"""
import hashlib
import json
import queue
import random
import re
import sys
import threading
import zlib

SCALE = int(sys.argv[1])


def digest(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()


def containers(rng):
    """Dictionaries, tuples and strings with random lifetimes."""
    live = {}
    total = 0
    for i in range(250_000 * SCALE):
        key = rng.randrange(20_000)
        old = live.pop(key, None)
        if old is not None:
            total += len(old[1]) + len(old[2])
        live[key] = (i, "v" * rng.randrange(200), [j for j in range(rng.randrange(12))], {"k": i})
    return total, digest(sorted((k, v[0]) for k, v in live.items()))


def growing(rng):
    """Realloc of large blocks, up and down."""
    data = bytearray()
    checksum = 0
    for _ in range(30 * SCALE):
        for _ in range(40):
            data += bytes([rng.randrange(256)]) * rng.randrange(200_000)
        checksum = zlib.crc32(data, checksum)
        del data[rng.randrange(len(data)):]
    return checksum


def documents(rng):
    """JSON out and in."""
    result = hashlib.sha256()
    for _ in range(6 * SCALE):
        value = {
            f"key{i}": [rng.random(), None, True, "text \u00e9\u4e2d" * rng.randrange(9), {"n": i}]
            for i in range(4_000)
        }
        text = json.dumps(value, sort_keys=True, indent=1)
        assert json.loads(text) == value
        result.update(text.encode())
    return result.hexdigest()


def patterns(rng):
    """Regular expressions, compiled anew each time."""
    words = ["".join(rng.choice("abcdef") for _ in range(rng.randrange(3, 9))) for _ in range(3_000)]
    text = " ".join(words)
    found = []
    for i in range(300 * SCALE):
        re.purge()
        pattern = re.compile(r"\b(%s)\w*|(?P<x>%s+)" % (rng.choice(words)[:3], rng.choice("abcdef")))
        found.append(len(pattern.findall(text)))
        found.append(zlib.crc32(pattern.sub(r"<\g<0>>", text).encode()))
    return digest(found)


def threads():
    """Blocks allocated in one thread and freed in another."""
    queues = [queue.Queue(maxsize=64) for _ in range(4)]
    results = [0] * 8

    def producer(n):
        rng = random.Random(n)
        for i in range(4_000 * SCALE):
            queues[rng.randrange(4)].put([n, "x" * rng.randrange(3_000), bytes(rng.randrange(50_000))])
        results[n] = rng.randrange(1 << 30)

    def consumer(n):
        while True:
            item = queues[n].get()
            if item is None:
                return
            results[4 + n] += item[0] + len(item[1]) + len(item[2])

    producers = [threading.Thread(target=producer, args=(n,)) for n in range(4)]
    consumers = [threading.Thread(target=consumer, args=(n,)) for n in range(4)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join()
    for q in queues:
        q.put(None)
    for thread in consumers:
        thread.join()
    # Many short threads: each starts and ends with a heap of its own.
    out = []
    lock = threading.Lock()

    def short(n):
        value = sum(len("y" * i) for i in range(n % 50))
        with lock:
            out.append((n, value))

    for start in range(0, 300 * SCALE, 10):
        batch = [threading.Thread(target=short, args=(start + i,)) for i in range(10)]
        for thread in batch:
            thread.start()
        for thread in batch:
            thread.join()
    return results, digest(sorted(out))


def numbers():
    """Big integers: blocks that only grow."""
    a, b = 0, 1
    for _ in range(40_000):
        a, b = b, a + b
    return digest(a % (10 ** 4000))


def main():
    rng = random.Random(20)
    print("containers", containers(rng))
    print("growing", growing(rng))
    print("documents", documents(rng))
    print("patterns", patterns(rng))
    print("threads", threads())
    print("numbers", numbers())


main()
