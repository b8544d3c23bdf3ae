"""fetch.py PORT ROUNDS PATH...: gets every path ROUNDS times over 8 threads,
each time from a new connection, and prints status, length and digest of each.
A body that differs between two rounds ends it."""
import hashlib
import http.client
import sys
import threading

port, rounds, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
seen = {}
wrong = []
lock = threading.Lock()
todo = [path for _ in range(rounds) for path in paths]


def worker():
    while True:
        with lock:
            if not todo or wrong:
                return
            path = todo.pop()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", "/" + path, headers={"Accept-Encoding": "gzip"})
            answer = connection.getresponse()
            body = answer.read()
            got = (answer.status, len(body), hashlib.sha256(body).hexdigest())
        except (OSError, http.client.HTTPException) as error:
            got = ("no answer", 0, repr(error))
        finally:
            connection.close()
        with lock:
            if seen.setdefault(path, got) != got or got[0] == "no answer":
                wrong.append((path, got, seen[path]))


threads = [threading.Thread(target=worker) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if wrong:
    sys.exit("fetch: %r" % (wrong[0],))
for path in paths:
    print(path, *seen[path])
