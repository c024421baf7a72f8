"""A child process of `compressnet bench`: it runs cases with process-wide settings of its own.

Parent and child speak JSON, a line each: the plan first, then requests about cases by their number:
{"facts": 0} -> {"inputs": ...}, {"run": 0} -> {"seconds": 0.0123}, {"peak": 0} -> {"bytes": 123456},
{"compare": {"names": {"0": "a", "1": "b"}, "effort": {...}, "clock": "wall"}} -> a comparison.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import Clock, Comparison


class Worker:
    """The parent's end, a context manager: the child lives from its begin to its end.

    Args:
        plan: the cases it can be asked for.
        cpu: CPU settings to apply in it; None: torch's own.
        environment: variables to add.
    """

    def __init__(
        self, plan: Plan, cpu: Mapping[str, Any] | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._greeting = {"plan": plan.as_dict(), "cpu": cpu}
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Worker:
        # -P: a file called random.py in the user's folder is not Python's.
        command = [sys.executable, "-P", "-m", "compressnet_cli.bench.worker"]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        try:
            self._ask(**self._greeting)
        except BaseException:
            self._end(kill=True)
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end(kill=kind is not None)

    def facts(self, number: int) -> Facts:
        """What a case runs."""
        from compressnet.analysis.bench import Facts

        return Facts.from_dict(self._ask(facts=number))

    def sampler(self, number: int) -> Callable[[], float]:
        """A callable that has the child run a case once: its seconds."""
        return lambda: float(self._ask(run=number)["seconds"])

    def compare(self, names: Mapping[int, str], effort: Effort, clock: Clock) -> Comparison:
        """Have the child time cases by itself, under these names."""
        from compressnet.analysis.timing import Comparison

        asked = {"names": dict(names), "effort": asdict(effort), "clock": clock}
        return Comparison.from_dict(self._ask(compare=asked))

    def peak(self, number: int) -> int | None:
        """Bytes that a case takes at its peak, None where that cannot be measured."""
        found: int | None = self._ask(peak=number)["bytes"]
        return found

    def _ask(self, **request: Any) -> Any:
        """One request; its answer.

        Raises:
            CompressnetError: what went wrong in the child, or it ended.
        """
        answer = ""
        with suppress(BrokenPipeError):
            print(json.dumps(request), file=self.child.stdin, flush=True)
            answer = self.child.stdout.readline()  # type: ignore[union-attr]
        if not answer:
            code = self.child.wait()
            raise CompressnetError(f"bench: a measuring process ended with {code}; is there enough memory?")
        result = json.loads(answer)
        if "error" in result:
            raise (UsageError if result["usage"] else CompressnetError)(result["error"])
        return result

    def _end(self, *, kill: bool) -> None:
        if kill:
            self.child.kill()
        with suppress(BrokenPipeError):
            self.child.stdin.close()  # type: ignore[union-attr]
        self.child.wait()
        self.child.stdout.close()  # type: ignore[union-attr]


def main(requests: IO[str], answers: IO[str]) -> None:
    """The child's end: serve requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this
    server: _Server | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if server is None:
                server, answer = _Server(request), {}
            else:
                answer = server.serve(request)
        except CompressnetError as error:
            answer = {"error": str(error), "usage": isinstance(error, UsageError)}
        except Exception as error:
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            answer = {"error": f"bench: {type(error).__name__}: {reason}", "usage": False}
        print(json.dumps(answer), file=answers, flush=True)


class _Server:
    def __init__(self, greeting: Mapping[str, Any]) -> None:
        from compressnet.training import device as devices

        if greeting["cpu"] is not None:
            from compressnet.training import cpu_settings

            cpu_settings.apply(cpu_settings.Settings.from_dict(greeting["cpu"]))
        from compressnet.analysis.bench import Plan, Session

        plan = Plan.from_dict(greeting["plan"])
        devices.choose(plan.device)  # on a GPU also what float32 means
        self.session = Session(plan)

    def serve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        ((what, value),) = request.items()
        if what == "facts":
            return self.session.facts(value).as_dict()
        if what == "run":
            return {"seconds": self.session.sampler(value)()}
        if what == "peak":
            return {"bytes": self.session.peak(value)}
        return self._compare(**value)

    def _compare(self, names: Mapping[str, str], effort: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
        from compressnet.analysis.rounds import Effort

        numbered = {int(number): name for number, name in names.items()}
        return self.session.compare(numbered, Effort(**effort), clock).as_dict()


def _own_stdout() -> IO[str]:
    """The pipe to the parent, for answers alone: what libraries print goes to stderr."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


if __name__ == "__main__":
    main(sys.stdin, _own_stdout())
