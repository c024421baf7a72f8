"""Forks the program for its clients.

python -m tests.forked.server SOCKET            until its stdin ends
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULE = "FORKED_MODULE"  # the variable that names another program of this project's
_HEAVY = (
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.onnx",
    "onnxscript",
    "skimage",
    "scipy",
    "torchmetrics",
)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Start a server; yields the script that stands for the program."""
    place = folder / "s"
    script = folder / "compressnet"
    client = Path(__file__).with_name("client.py").read_text()
    script.write_text(f"#!{sys.executable} -IS\n" + client.replace('SOCKET = ""', f"SOCKET = {str(place)!r}"))
    script.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.forked.server", str(place)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        assert server.stdout.readline() == b"ready\n"
        yield script
        server.stdin.close()


class Server:
    """Clients by their programs."""

    def __init__(self, place: str) -> None:
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(place)
        self._listening.listen(64)
        self._clients: dict[int, socket.socket] = {}
        self._events = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self._listening, self._woken, sys.stdin.fileno()):
            self._events.register(source, selectors.EVENT_READ)

    def serve(self) -> None:
        """Until stdin ends."""
        while True:
            # Who was killed is dead before anybody new begins.
            ready = {key.fileobj: key.data for key, _ in self._events.select()}
            for source, pid in ready.items():
                if pid is not None:
                    self._of_client(source, pid)
            if self._woken in ready:
                self._woken.recv(1000)
                self._reap()
            if sys.stdin.fileno() in ready:
                self._end()
                return
            if self._listening in ready:
                self._begin()

    def _begin(self) -> None:
        client, _ = self._listening.accept()
        head, files, _, _ = socket.recv_fds(client, 4, 3)
        asked = json.loads(_exactly(client, int.from_bytes(head, "little")))
        if (pid := os.fork()) == 0:
            _become(asked, files)
        for file in files:
            os.close(file)
        self._clients[pid] = client
        self._events.register(client, selectors.EVENT_READ, pid)

    def _of_client(self, client: Any, pid: int) -> None:
        """A signal to pass on, or the end of a client, which was killed."""
        try:
            numbers = client.recv(100)
        except OSError:
            numbers = b""
        for number in numbers or (signal.SIGKILL,):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not numbers:
            self._ended(pid, os.waitpid(pid, 0)[1])

    def _reap(self) -> None:
        for pid in list(self._clients):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        client = self._clients.pop(pid)
        self._events.unregister(client)
        with contextlib.suppress(OSError), client:
            client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))

    def _end(self) -> None:
        for pid in self._clients:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _exactly(client: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        parts.append(client.recv(length))
        length -= len(parts[-1])
    return b"".join(parts)


def _become(asked: dict[str, Any], files: list[int]) -> None:
    """The program, in a process that was just forked: never returns."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    os.umask(asked["umask"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    kept = [os.dup(file) for file in files]
    os.closerange(3, min(kept, default=3))
    os.closerange(max(kept, default=3) + 1, 1024)
    for number in (0, 1, 2):
        if number in asked["files"]:
            os.dup2(kept[asked["files"].index(number)], number)
        else:
            with contextlib.suppress(OSError):
                os.close(number)
    for file in kept:
        os.close(file)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        setattr(sys, name, _stream(number) if number in asked["files"] else None)
        setattr(sys, f"__{name}__", getattr(sys, name))
    sys.argv = ["compressnet", *asked["words"]]
    sys.path[0] = ""
    os._exit(_run(os.environ.pop(MODULE, "compressnet_cli")))


def _run(module: str) -> int:
    """A module as `python -m` runs it; its exit code."""
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError):
            stream.flush()
    return code if isinstance(code, int) else int(code is not None)


def _stream(number: int) -> io.TextIOWrapper:
    """As Python opens the standard streams."""
    mode, buffered = "rb" if number == 0 else "wb", 0 if number == 2 else -1
    file: Any = open(number, mode, buffered, closefd=False)  # noqa: SIM115  # for as long as the process lives
    errors = "backslashreplace" if number == 2 else "strict"
    line = number == 2 or os.isatty(number)
    return io.TextIOWrapper(file, "utf-8", errors, line_buffering=line, write_through=number == 2)


def _import_everything() -> None:
    for name in _HEAVY:
        importlib.import_module(name)
    import compressnet_cli.main

    import compressnet

    assert compressnet_cli.main
    for module in pkgutil.walk_packages(compressnet.__path__, "compressnet."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an extra, or Triton, that is not installed
                importlib.import_module(module.name)


def main() -> None:
    """Import, then serve."""
    _import_everything()
    assert threading.active_count() == 1, "a fork would not have the other threads"
    server = Server(sys.argv[1])
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.flush()
    server.serve()


if __name__ == "__main__":
    main()
