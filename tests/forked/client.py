"""Stands for the program; `server.install` writes it, with its `SOCKET`, as a script."""

import array
import contextlib
import json
import os
import signal
import socket
import sys

SOCKET = ""


def main() -> int:
    """Have the server run the program; its exit code."""
    files = [number for number in (0, 1, 2) if _is_open(number)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(SOCKET)
        asked = {
            "words": sys.argv[1:],
            "folder": os.getcwd(),
            "environment": dict(os.environ),
            "umask": _umask(),
            "files": files,
            "ignored": [int(number) for number in _PASSED if signal.getsignal(number) == signal.SIG_IGN],
        }
        for number in _PASSED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, frame: _pass_on(server, number))
        data = json.dumps(asked).encode()
        handed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        server.sendmsg([len(data).to_bytes(4, "little")], handed)
        server.sendall(data)
        code = int(server.makefile().readline() or "1")
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


_PASSED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _pass_on(server: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        server.send(bytes([number]))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _umask() -> int:
    before = os.umask(0o22)
    os.umask(before)
    return before


if __name__ == "__main__":
    os._exit(main())
