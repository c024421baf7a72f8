"""The process of a section: runs its cases and tells of each through a pipe, a line of JSON an event.

{"plan": [[name, seconds], ...]}    {"begin": name}    {"row": {...}}    {"end": true}
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib import import_module
from typing import Any

from benchmarks.cuda_checks.cases import Case, Cases, Failed, Finding, Row, Settings, Skip, State, one_line


class Child:
    """The child's end of the pipe."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.section = request["section"]
        self.events = os.fdopen(request["events"], "w")
        self.lock = threading.Lock()

    def tell(self, **event: Any) -> None:
        with self.lock:
            self.events.write(json.dumps(event) + "\n")
            self.events.flush()

    def run(self, found: Cases, done: set[str]) -> None:
        """All cases but those that were done by a process before this one."""
        self.tell(plan=[[case.name, case.seconds] for case in found.cases])
        left = [case for case in found.cases if case.name not in done]
        if found.parallel == 1:
            for case in left:
                self.do(case)
        else:
            with ThreadPoolExecutor(found.parallel) as pool:
                list(pool.map(self.do, left))
        self.tell(end=True)

    def do(self, case: Case) -> None:
        self.tell(begin=case.name)
        began = time.monotonic()
        state: State = "ok"
        finding = Finding()
        try:
            finding = case.run() or finding
        except Skip as reason:
            state, finding = "skipped", Finding(message=one_line(reason))
        except (Exception, SystemExit) as error:
            state, finding = "failed", Finding(message=one_line(error))
            self.log(case, error)
        row = Row(self.section, case.name, state, *finding, seconds=round(time.monotonic() - began, 2))
        self.tell(row=asdict(row))
        if state == "failed" and _device_is_lost():
            os._exit(1)  # all that follows here would fail too: a new process does it

    def log(self, case: Case, error: BaseException) -> None:
        text = str(error) if isinstance(error, Failed) else "".join(traceback.format_exception(error))
        with self.lock:
            sys.stderr.write(f"\n--- {case.name}\n{text}\n")
            sys.stderr.flush()


def _device_is_lost() -> bool:
    """Whether CUDA answers every call with the error of an earlier one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def main() -> None:
    faulthandler.enable()
    request = json.loads(sys.argv[1])
    child = Child(request)
    module, name = request["place"].split(":")
    make = getattr(import_module(module), name)
    child.run(make(Settings(**request["settings"]), request["seconds"]), set(request["done"]))


if __name__ == "__main__":
    main()
