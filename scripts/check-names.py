#!/usr/bin/env python3
"""check-names.py COMMAND: checks that amp-token resolves names as the system's resolv.conf says, in network and mount namespaces
of its own: a name of the search domain, a first name server that never answers, and an answer that comes by TCP only.

The command that is linked statically resolves names with musl's code, others with glibc's.
"""

import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

RESOLV_CONF = "search corp.test\nnameserver 127.0.0.2\nnameserver 127.0.0.3\noptions timeout:1 attempts:1\n"
# Nothing listens there: that a connection is refused shows that the name was resolved.
ADDRESS = "127.0.0.9"


def answer(query, by_tcp, asked):
    """`auth.corp.test` has one address, and a UDP answer is truncated. No other name exists."""
    end = query.index(b"\0", 12) + 1
    kind = struct.unpack(">H", query[end : end + 2])[0]
    asked.add((query[12:end], by_tcp))
    known = query[12:end] == b"\4auth\4corp\4test\0"
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(ADDRESS) if known and by_tcp and kind == 1 else b""
    flags = 0x8180 | (0 if known else 3) | (0x0200 if known and not by_tcp else 0)
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(record), 0, 0) + query[12 : end + 4] + record


def serve_udp(server, asked):
    while True:
        query, peer = server.recvfrom(4096)
        server.sendto(answer(query, False, asked), peer)


def serve_tcp(server, asked):
    while True:
        stream = server.accept()[0].makefile("rwb")
        while length := stream.read(2):
            reply = answer(stream.read(struct.unpack(">H", length)[0]), True, asked)
            stream.write(struct.pack(">H", len(reply)) + reply)
            stream.flush()


def main(command):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(RESOLV_CONF)
        file.flush()
        subprocess.run(["mount", "--bind", file.name, os.path.realpath("/etc/resolv.conf")], check=True)
        silent, udp = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        silent.bind(("127.0.0.2", 53))
        udp.bind(("127.0.0.3", 53))
        tcp = socket.create_server(("127.0.0.3", 53))
        asked = set()
        for target, server in ((serve_udp, udp), (serve_tcp, tcp)):
            threading.Thread(target=target, args=(server, asked), daemon=True).start()
        for name, expected in (("auth", "refused"), ("missing", "cannot resolve")):
            arguments = ["get", "--store", "none", "--auth-url", f"https://{name}:1", "--retries", "0", "--client-id", "x"]
            done = subprocess.run([command, *arguments], env={"AMPLIENCE_CLIENT_SECRET": "x"}, capture_output=True, text=True)
            print(done.stderr.strip())
            assert done.returncode != 0 and re.search(expected, done.stderr), f"{name}: {done}"
        assert (b"\4auth\4corp\4test\0", True) in asked, asked
    print("names are found by a search domain, past a silent name server, and by TCP")


if __name__ == "__main__":
    if os.environ.pop("AMP_IN_NAMESPACE", None):
        main(sys.argv[1])
    else:
        namespaces = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
        if subprocess.run([*namespaces, "ip", "link", "set", "lo", "up"], capture_output=True).returncode != 0:
            print("NOT CHECKED: how names are resolved, because this needs namespaces and iproute2")
            sys.exit()
        command = [*namespaces, sys.executable, *sys.argv]
        os.execvpe(command[0], command, {**os.environ, "AMP_IN_NAMESPACE": "1"})
