"""A child process of `compressnet bench`: it runs cases with process-wide settings of its own.

Parent and child speak JSON, a line each: the plan first, then requests about cases by their number:
{"facts": 0} -> {"inputs": ...}, {"run": 0} -> {"seconds": 0.0123}, {"peak": 0} -> {"bytes": 123456},
{"compare": {"names": {"0": "a", "1": "b"}, "effort": {...}, "clock": "wall"}} -> a comparison.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

from compressnet.errors import CompressnetError, UsageError

if TYPE_CHECKING:
    from compressnet.analysis.bench import Facts, Plan, Prepared
    from compressnet.analysis.rounds import Effort
    from compressnet.analysis.timing import Clock, Comparison


class Worker:
    """The parent's end. Use as a context manager: the child ends with it."""

    def __init__(
        self, plan: Plan, cpu: Mapping[str, Any] | None, environment: Mapping[str, str] = {}
    ) -> None:
        """Start a child.

        Args:
            plan: the cases it can be asked for.
            cpu: CPU settings to apply in it; None: torch's own.
            environment: variables to add.
        """
        self._child = subprocess.Popen(
            [sys.executable, "-m", "compressnet_cli.bench_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self.ask(plan=plan.as_dict(), cpu=cpu)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stdin.close()  # type: ignore[union-attr]
        self._child.wait()

    def ask(self, **request: Any) -> Any:
        """One request; its answer.

        Raises:
            CompressnetError: what went wrong in the child, or it ended.
        """
        try:
            print(json.dumps(request), file=self._child.stdin, flush=True)
            answer = self._child.stdout.readline()  # type: ignore[union-attr]
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._child.wait()
            raise CompressnetError(f"bench: a measuring process ended with {code}; is there enough memory?")
        result = json.loads(answer)
        if "error" in result:
            raise (UsageError if result["usage"] else CompressnetError)(result["error"])
        return result

    def facts(self, number: int) -> Facts:
        """What a case runs."""
        from compressnet.analysis.bench import Facts

        return Facts.from_dict(self.ask(facts=number))

    def sampler(self, number: int) -> Callable[[], float]:
        """A callable that has the child run a case once: its seconds."""
        return lambda: float(self.ask(run=number)["seconds"])

    def compare(self, names: Mapping[int, str], effort: Effort, clock: Clock) -> Comparison:
        """Have the child time cases by itself, under these names."""
        from compressnet.analysis.timing import Comparison

        asked = {"names": dict(names), "effort": asdict(effort), "clock": clock}
        return Comparison.from_dict(self.ask(compare=asked))

    def peak(self, number: int) -> int | None:
        """Bytes that a case takes at its peak, None where that cannot be measured."""
        found: int | None = self.ask(peak=number)["bytes"]
        return found


def main(requests: IO[str], answers: IO[str]) -> None:
    """The child's end: serve requests until there are no more."""
    session: _Session | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if session is None:
                session = _Session(request)
                answer: dict[str, Any] = {}
            else:
                answer = session.serve(request)
        except CompressnetError as error:
            answer = {"error": str(error), "usage": isinstance(error, UsageError)}
        print(json.dumps(answer), file=answers, flush=True)


class _Session:
    def __init__(self, request: Mapping[str, Any]) -> None:
        if request["cpu"] is not None:
            from compressnet.training import cpu_settings

            cpu_settings.apply(cpu_settings.Settings.from_dict(request["cpu"]))
        from compressnet.analysis.bench import Plan

        self.plan = Plan.from_dict(request["plan"])
        self.ready: dict[int, Prepared] = {}

    def serve(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request."""
        import torch

        from compressnet.analysis.memory import peak_bytes
        from compressnet.analysis.timing import sampler

        ((what, number),) = request.items()
        if what == "compare":
            return self._compare(**number)
        prepared, device = self._prepared(number), torch.device(self.plan.device)
        if what == "facts":
            return prepared.facts.as_dict()
        if what == "run":
            return {"seconds": sampler(prepared.form, device)()}
        del self.ready[number]  # what one case holds must not stand beside the next one
        return {"bytes": peak_bytes(prepared.form, device)}

    def _compare(self, names: Mapping[str, str], effort: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
        from compressnet.analysis.rounds import Effort
        from compressnet.analysis.timing import compare

        forms = {name: self._prepared(int(number)).form for number, name in names.items()}
        return compare(forms, Effort(**effort), self.plan.device, clock).as_dict()

    def _prepared(self, number: int) -> Prepared:
        from compressnet.analysis.bench import prepare

        if number not in self.ready:
            self.ready[number] = prepare(self.plan, self.plan.cases[number])
        return self.ready[number]


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
