"""A Redis server under redis-benchmark. Only the server has the allocator; the
wall time is the client's, processor time and memory are the server's."""

import shutil
import socket
import time

from launch import Failure, Sample

TESTS = "set,get,incr,lpush,lpop,sadd,hset,zadd,lrange_100,mset"


def server_program():
    """Debian's redis-tools has the server in it, under the name of its checker."""
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


def missing():
    return None if server_program() and shutil.which("redis-benchmark") else "redis-tools"


def prepare(context):
    (context.folder / "redis-server").symlink_to(server_program())


def command(context, words):
    """Sends one command to the server and returns the start of its answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(context.folder / "socket"))
        connection.sendall(words.encode() + b"\r\n")
        return connection.recv(100).decode(errors="replace")


def wait_until_ready(context, server):
    """Returns when the server answers."""
    for _ in range(1000):
        try:
            if command(context, "PING").startswith("+PONG"):
                return
        except OSError:
            pass
        if server.process.poll() is not None:
            server.finish(1)
            raise Failure("redis-server ended at once")
        time.sleep(0.01)
    raise Failure("redis-server does not answer")


def run(context, library):
    server = context.start(["./redis-server", "--port", "0", "--unixsocket", str(context.folder / "socket"),
                            "--save", "", "--appendonly", "no", "--dir", str(context.folder)], library)
    try:
        wait_until_ready(context, server)
        client = context.run(["redis-benchmark", "-s", str(context.folder / "socket"), "-q", "-c", "20", "-P", "16",
                              "-n", str(context.amount(30000)), "-r", "100000", "-d", "200", "-t", TESTS], "")
        command(context, "SHUTDOWN NOSAVE")
        served = server.finish(context.timeout)
        return Sample(client.seconds, served.processor, served.peak_kib)
    except BaseException:
        server.kill()
        raise
