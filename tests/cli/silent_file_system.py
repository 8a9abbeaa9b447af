#!/usr/bin/env python3
"""silent_file_system.py DIRECTORY STOP: mounts a FUSE file system with one directory, `store`, which only its owner can
enter. It responds until the file STOP exists, then never again, like a file server that is gone. Needs root.

By hand, because libfuse is seldom installed. The requests are those of include/uapi/linux/fuse.h.
"""

import ctypes
import errno
import os
import struct
import sys

LOOKUP, FORGET, GETATTR, OPENDIR, RELEASEDIR, FLUSH, INIT = 1, 2, 3, 27, 29, 25, 26
ROOT, STORE = 1, 2
# For this many seconds, the kernel need not ask again.
VALID = 60


def attributes(node: int) -> bytes:
    return struct.pack("<6Q10I", node, *[0] * 8, 0o40700, 2, 0, 0, 0, 4096, 0)


def response(operation: int, node: int, body: bytes) -> tuple[int, bytes]:
    """An error number and the content."""
    if operation == INIT:
        return 0, struct.pack("<4I2H3I", 7, 23, 65536, 0, 16, 12, 65536, 1, 0) + bytes(32)
    if operation == LOOKUP and (node, body.split(b"\0")[0]) == (ROOT, b"store"):
        return 0, struct.pack("<4Q2I", STORE, 0, VALID, VALID, 0, 0) + attributes(STORE)
    if operation == GETATTR:
        return 0, struct.pack("<Q2I", VALID, 0, 0) + attributes(node)
    if operation == OPENDIR:
        return 0, struct.pack("<Q2I", 1, 0, 0)
    if operation in (RELEASEDIR, FLUSH):
        return 0, b""
    return errno.ENOENT if operation == LOOKUP else errno.EROFS, b""


def main() -> None:
    directory, stop = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"silent", os.fsencode(directory), b"fuse", 0, options) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
    print("mounted", flush=True)
    while True:
        request = os.read(device, 1 << 20)
        _, operation, unique, node = struct.unpack_from("<2I2Q", request)
        if operation == FORGET or (operation != INIT and os.path.exists(stop)):
            continue
        error, content = response(operation, node, request[40:])
        if error:
            content = b""
        try:
            os.write(device, struct.pack("<IiQ", 16 + len(content), -error, unique) + content)
        except FileNotFoundError:
            # The process that asked was killed.
            pass


main()
