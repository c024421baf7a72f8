"""One resolver for what a command is given: a run, weights, a recipe, or a name with arguments.

[zoo|operator|recipe|model|layer:]NAME[:key=value,...]      a name
runs/fip_sample-1[@last|@best|@step-500]                    a path: it has a separator or a suffix
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from compressnet import json_file, registry, signature, user_module
from compressnet.errors import CompressnetError, UsageError, named, short, told
from compressnet.source import Source

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressnet.reporter import Reporter
    from compressnet.run import Run
    from compressnet.tasks.protocol import Answers, Task
    from compressnet.weights import Architecture

STORED = ("run", "weights", "zoo")
KINDS = ("zoo", "operator", "recipe", "model", "layer")
RUN = "run"  # a kind that has no prefix: runs are paths
RUNS = Path("runs")  # where they are looked for by name
_LISTS = {"zoo": "zoo", "operator": "operators", "recipe": "recipes", "model": "models", "layer": "layers"}
_LISTS |= {RUN: "runs"}
RECIPE_SUFFIXES = (".yaml", ".yml")
WEIGHTS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Subject:
    """A parsed subject: nothing has been opened yet.

    Attributes:
        kind: run, weights, py (`user_module`), or one of `KINDS`.
        name: the name, or the path as it was typed; of py FILE.py:NAME.
        arguments: of an operator, model, layer or a module of the user's.
        path: the file or directory, where there is one.
        checkpoint: of a run: best, last or step-<n>.
    """

    kind: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    checkpoint: str = "best"

    @property
    def text(self) -> str:
        """What a person types to mean it."""
        if self.kind in (*KINDS, user_module.PREFIX):
            return f"{self.kind}:{signature.write_named(self.name, self.arguments)}"
        return (
            self.name if self.kind != "run" or self.checkpoint == "best" else f"{self.name}@{self.checkpoint}"
        )


@dataclass(frozen=True)
class Loaded:
    """A subject ready to use. `apply` is the task's, bound to the model.

    Attributes:
        architecture: None for an operator.
        run: the run it came from, if it did.
    """

    subject: Subject
    model: nn.Module
    task: Task
    architecture: Architecture | None = None
    run: Run | None = None

    @property
    def assets(self) -> dict[str, Any]:
        """What the task needs besides weights."""
        return self.architecture.assets if self.architecture else {}

    def apply(
        self,
        inputs: Iterable[Path | str] | Path | str,
        reporter: Reporter | None = None,
        on_error: Literal["raise", "yield"] = "raise",
        **options: Any,
    ) -> Iterator[tuple[Path, Any]]:
        """Use the model on files: yields (path, artefact).

        Args:
            on_error: what to do with an input that cannot be used: raise its CompressnetError, or yield it in
                the artefact's place and go on.

        Raises:
            UsageError: an option that the task does not take.
        """
        from compressnet.reporter import Silent

        paths = [inputs] if isinstance(inputs, str | Path) else inputs
        answers = self.answers([Source.of(path) for path in paths], options, reporter or Silent())
        return _of_paths(answers, raising=on_error == "raise")

    def answers(self, sources: Sequence[Source], options: dict[str, Any], reporter: Reporter) -> Answers:
        """`apply` to sources, which may be no files: (source, artefact or error) each, lazily.

        Raises:
            UsageError: an option that the task does not take.
        """
        keywords, problems = signature.check(self.task.options, options)
        if problems:
            raise UsageError("; ".join(problem.message for problem in problems))
        answers = self.task.apply(self.model.eval(), sources, keywords, reporter)
        return self._running(answers) if self.is_edited else answers

    @property
    def is_edited(self) -> bool:
        """Whether its file replaces layers, which a stranger may have written such that they do not fit."""
        return bool(self.architecture and self.architecture.edits)

    def running(self) -> AbstractContextManager[None]:
        """Where the network runs: of one that is edited, what torch raises is a line that names it."""
        return told(self.subject.text) if self.is_edited else nullcontext()

    def _running(self, answers: Answers) -> Answers:
        with self.running():
            yield from answers


def _of_paths(answers: Answers, raising: bool) -> Iterator[tuple[Path, Any]]:
    for source, artefact in answers:
        if raising and isinstance(artefact, CompressnetError):
            raise artefact
        yield Path(source.name), artefact


def parse(text: str, takes: Sequence[str] = (*KINDS, RUN)) -> Subject:
    """Find out what `text` means.

    Args:
        takes: the kinds of names that whoever asks can use (`RUN` among them), for the message where there is
            no such name.

    Raises:
        UsageError: nothing has that name, or two things have; the message lists them.
        CompressnetError: a path that is not there.
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix == user_module.PREFIX:
        path, name, given = user_module.read_name(rest)
        return Subject(prefix, f"{path}:{name}", signature.split_arguments(given), path)
    if colon and prefix in KINDS:
        name, arguments = signature.read_named(rest)
        _check_exists(prefix, name)
        return _named(prefix, name, arguments)
    if ".py:" in text and Path(f"{text.partition('.py:')[0]}.py").is_file():
        raise UsageError(
            f"there is nothing called '{short(text)}' - did you mean '{user_module.PREFIX}:{short(text)}'?"
        )
    if _is_path(text):
        return _from_path(text)
    if not text:
        raise UsageError("the subject is empty: name a run, a weights file, zoo:NAME or operator:NAME")
    kinds = [kind for kind in KINDS if prefix in names(kind)]
    if colon and not kinds:
        near = registry.suggestion(prefix, [f"{kind}:" for kind in KINDS])
        raise UsageError(f"there is nothing called '{short(prefix)}'{near}")
    name, arguments = signature.read_named(text)
    if len(kinds) > 1:
        forms = " or ".join(f"{kind}:{name}" for kind in kinds)
        raise UsageError(f"'{name}' means {len(kinds)} things: write {forms}")
    if not kinds:
        if _exists(Path(name)) or ("@" in name and _exists(Path(name.rpartition("@")[0]))):
            return _from_path(name)
        near = _suggestion(name, takes)
        lists = " or ".join(f"`compressnet {_LISTS[kind]} ls`" for kind in takes)
        lists = "" if "did you mean" in near else f"{lists} lists all; "
        raise UsageError(
            f"there is no '{named(name)}'{near}; {lists}"
            f"a run or file is written with its path: ./{short(name)}"
        )
    return _named(kinds[0], name, arguments)


def _suggestion(name: str, takes: Sequence[str]) -> str:
    """As `registry.suggestion`; a run is found by its name, and shown as it is typed."""
    known = {Path(entry).name: entry for kind in takes for entry in names(kind)}
    near = difflib.get_close_matches(short(name), known, n=1)
    return f" - did you mean '{known[near[0]]}'?" if near else registry.suggestion(name, known.values())


def names(kind: str) -> list[str]:
    """The names of one of `KINDS`; of `RUN` the paths of those below `RUNS`."""
    if kind == RUN:
        return _runs_in(RUNS)
    if kind == "zoo":
        return sorted(entry.name.removesuffix(WEIGHTS_SUFFIX) for entry in _entries("zoo", WEIGHTS_SUFFIX))
    if kind == "recipe":
        return sorted(entry.name.removesuffix(".yaml") for entry in _entries("recipe", ".yaml"))
    if kind == "layer":
        return sorted(registry.LAYERS.keys() | registry.FORMULAS.keys())
    return sorted(registry.REGISTRIES[kind])


def load(subject: str | Subject) -> Loaded:
    """Open a run, a weights file, a network of the zoo, a fresh model or an operator, ready to use.

    Raises:
        UsageError: the subject is not one of these.
        CompressnetError: its files are missing or damaged.
    """
    from compressnet import weights

    subject = parse(subject, ("zoo", "operator", RUN)) if isinstance(subject, str) else subject
    if subject.kind == "operator":
        return _load_operator(subject)
    if subject.kind not in STORED:
        raise UsageError(
            f"'{subject.name}' is of kind {subject.kind}: give a run, weights, zoo:NAME or operator:NAME"
        )
    path, run = weights_path(subject)
    try:
        architecture, model = weights.open_model(path)
    except CompressnetError as error:
        others = [
            f"{subject.name}@step-{step}"
            for step in (run.steps() if run else ())
            if f"step-{step}" not in path.parts
        ]
        if not others:
            raise
        raise CompressnetError(f"{error}; other checkpoints of the run: {', '.join(others[-5:])}") from error
    if run:
        _check_of_run(architecture, run, path)
    return Loaded(subject, model.eval(), task_of(architecture, str(path)), architecture, run)


def _check_of_run(architecture: Architecture, run: Run, path: Path) -> None:
    for key in ("task", "model"):
        here, there = getattr(architecture, key), getattr(run.recipe, key).name
        if here != there:
            raise CompressnetError(
                f"{path}: it holds weights of the {key} '{here}', the run trains '{there}': not its own"
            )


def task_of(architecture: Architecture, source: str) -> Task:
    """The task that weights were trained for, with what is stored for it.

    Args:
        source: the weights, for messages.

    Raises:
        CompressnetError: there is no such task, what is stored is not its, or the model is of another.
    """
    try:
        task: Task = signature.build("task", architecture.task, architecture.task_args)
        task.use(architecture.assets)
        check_sizes(architecture.model, architecture.model_args, architecture.task, task.sizes())
    except CompressnetError as error:
        raise CompressnetError(f"{source}: {error}") from error
    return task


def check_sizes(model: str, model_args: dict[str, Any], task: str, sizes: dict[str, Any]) -> None:
    """Refuse a model that is not for a task, or not of the sizes that follow from the task's data.

    Raises:
        CompressnetError: what does not fit.
    """
    if problem := signature.misfit(model, task, sizes):
        raise CompressnetError(problem)
    known = signature.parameters(registry.find("model", model))
    for key, value in sizes.items():
        if (has := model_args.get(key, known[key].default)) != value:
            raise CompressnetError(f"the model has {key}={has!r:.40}, the task '{task}' needs {value!r:.40}")


def create(name: str, **arguments: Any) -> nn.Module:
    """A fresh network by name: `create("can24", variant="paper")`.

    Raises:
        UsageError: unknown name or argument.
    """
    model: nn.Module = signature.build("model", name, arguments)
    return model


def read_weights(text: str) -> tuple[Architecture, dict[str, Tensor], str]:
    """Architecture, tensors and path of a run, weights file or network of the zoo."""
    from compressnet import weights

    subject = parse(text, ("zoo", RUN))
    if subject.kind not in STORED:
        raise UsageError(
            f"'{text}' is of kind {subject.kind}: weights come from a run, a weights file or zoo:NAME"
        )
    path, _ = weights_path(subject)
    return *weights.load(path), str(path)


def weights_path(subject: Subject) -> tuple[Path, Run | None]:
    """The weights file of one of `STORED` and, of a run, the opened run.

    Raises:
        CompressnetError: the run is damaged or has no such checkpoint.
    """
    from compressnet.run import Run

    assert subject.path is not None
    if subject.kind == "run":
        run = Run.open(subject.path)
        return run.checkpoints.weights(subject.checkpoint), run
    return subject.path, None


def zoo_card(name: str) -> dict[str, Any]:
    """The card of a network of the zoo: data, command, time, result.

    Raises:
        CompressnetError: it is missing or damaged.
    """
    from compressnet.card import Card

    path = Path(str(_folder("zoo") / f"{name}.json"))
    card: dict[str, Any] = json_file.read(path)
    json_file.check(Card, card, str(path))
    return card


def recipe_path(name: str) -> Path:
    """The file of a recipe that the package ships."""
    return Path(str(_folder("recipe") / f"{name}.yaml"))


def _is_path(text: str) -> bool:
    bare = text.partition("@")[0]
    return "/" in bare or "\\" in bare or bare.endswith((*RECIPE_SUFFIXES, WEIGHTS_SUFFIX))


def _from_path(text: str) -> Subject:
    path, checkpoint = Path(text), "best"
    if not _exists(path) and "@" in path.name:
        text, _, checkpoint = text.rpartition("@")
        path = Path(text)
    if not _exists(path):
        raise CompressnetError(f"{short(str(path), 300)}: no such file or directory{_near_run(path)}")
    if path.is_dir():
        return Subject("run", text, path=path, checkpoint=checkpoint)
    if path.suffix in RECIPE_SUFFIXES:
        return Subject("recipe", text, path=path)
    if path.suffix == WEIGHTS_SUFFIX:
        return Subject("weights", text, path=path)
    if path.suffix == ".py":
        raise UsageError(
            f"{path}: a network of your own is written py:{path}:NAME, with its class or function"
        )
    raise UsageError(f"{path}: a subject is a run directory, a .safetensors or a .yaml file")


def _near_run(path: Path) -> str:
    """The run beside a path that is not there which has nearly its name, as the end of a message."""
    runs = {Path(run).name: run for run in _runs_in(path.parent)}
    near = difflib.get_close_matches(short(path.name), runs, n=1)
    return f" - did you mean '{runs[near[0]]}'?" if near else ""


def _runs_in(folder: Path) -> list[str]:
    return sorted(str(facts.parent) for facts in folder.glob("*/run.json"))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _named(kind: str, name: str, arguments: dict[str, Any]) -> Subject:
    if arguments and kind in ("zoo", "recipe"):
        raise UsageError(f"{kind}:{name} takes no arguments")
    path = None
    if kind == "recipe":
        path = recipe_path(name)
    elif kind == "zoo":
        path = Path(str(_folder("zoo") / f"{name}{WEIGHTS_SUFFIX}"))
    return Subject(kind, name, arguments, path)


def _check_exists(kind: str, name: str) -> None:
    if name not in names(kind):
        near = registry.suggestion(name, names(kind))
        what = f"'{named(name)}' in the zoo" if kind == "zoo" else f"{kind} '{named(name)}'"
        raise UsageError(f"there is no {what}{near}")


def _folder(kind: str) -> Any:
    return (
        resources.files("compressnet_recipes") if kind == "recipe" else resources.files("compressnet") / "zoo"
    )


def _entries(kind: str, suffix: str) -> list[Any]:
    folder = _folder(kind)
    return [entry for entry in folder.iterdir() if entry.name.endswith(suffix)] if folder.is_dir() else []


def _load_operator(subject: Subject) -> Loaded:
    from compressnet.tasks.image_processing import OperatorItself

    text = signature.write_named(subject.name, subject.arguments)
    try:
        model: nn.Module = signature.build("layer", "operator", {"operator": text})
    except UsageError as error:
        raise UsageError(str(error).removeprefix("layer operator: ")) from error
    return Loaded(subject, model, OperatorItself(text))
