"""Mutated recipes, YAML attacks, random `--set` and subject texts, through the readers that commands use.

RECIPES=folder/of/recipes python -m tests.faults.recipe_files [COUNT] [FIRST]

The attacks come on top of COUNT.
"""

from __future__ import annotations

import functools
import os
import random
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from compressnet import signature, subject
from compressnet.recipe import Recipe
from compressnet.side import read_sides

from .common import Arguments, arguments, work
from .fuzzing import Case, Wrong, campaign

LINES_OF_A_RECIPE = 20  # every mistake at once
TOKENS = ["&a [*a]", "*a", "&a", "!!python/object/apply:os.system ['true']", "!!python/object:os.system {}",
          "!!binary x", "!!binary =", "!!timestamp x", "!!timestamp 2001-13-45",
          "!!int x", "!!int 0x1", "!!float x", "!!bool x", "!!null x", "!!set {a}", "!!omap [a: 1]",
          "!!pairs [a]", "!!str [a]", "!!seq {}", "!!map []", "!<tag:x> 1", "! x",
          "? [a]\n: b", "? {a: 1}\n: b", "<<: {steps: 3}", "<<: [1]", "9" * 5000, "0x" + "f" * 9, "1e999",
          "-1e999", ".nan", ".inf", "1_000", "0o7", "~", "null", "yes",
          '"\\UFFFFFFFF"', '"\\xZZ"', '"\\ud800"', "\0", "\x85", "\u2028", "\ufeff", "\t", "\x1b[31m",
          "[red]", "[/]", "%YAML 9.9\n---", "---\n---", "...", "|\n  x", ">\n x", "{", "}", "[", "]",
          "- ", ": ", "#", "'", '"', "\\", "@", "`", "../../x", "/", "~root", "~nobody-at-all/x",
          "a" * 10000, "[" * 50 + "]" * 50, "{a: " * 30 + "1" + "}" * 30, "-1", "0", "1e-4",
          "true"]  # fmt: skip
LETTERS = [*"abc.=:,[]{}@/ '\"\\&*!|>%#~0123456789-", "train", "lr", "steps", "model", "data", "root", "l0",
           "rof", "lstm", "zoo", "operator", "lambda",
           "hidden_size", "é", "\x1b[31m", *TOKENS]  # fmt: skip
KEYS = ["train.lr", "train.steps", "model.name", "data.root", "task.operator", "seed", "init", "smoke",
        "train", "model", "data", "train.stop", "train.stop.metric",
        "version", "name", "eval.batch"]  # fmt: skip


def _bomb(entry: str, levels: int = 9) -> str:
    """Anchors that name the one before many times; `entry` writes such a line."""
    lines = []
    for n in range(1, levels + 1):
        aliases, keys = [f"*a{n - 1}"] * 9, [f"k{i}: *a{n - 1}" for i in range(9)]
        lines.append(entry.format(n=n, aliases=", ".join(aliases), keys=", ".join(keys)))
    return "\n".join(lines)


ATTACKS: dict[str, str | bytes] = {
    "billion laughs": "a0: &a0 [lol, lol]\n" + _bomb("a{n}: &a{n} [{aliases}]") + "\nversion: 1\n",
    "billion laughs of mappings": "a0: &a0 {x: 1}\n"
    + _bomb("a{n}: &a{n} {{{keys}}}"),
    "quadratic blowup": "a: &a [" + "x," * 20000 + "]\nb: [" + "*a," * 2000 + "]",
    "merge bomb": "a0: &a0 {x: 1}\n" + _bomb("a{n}: &a{n} {{<<: [{aliases}]}}"),
    "alias of itself": "a: &a [*a]", "mapping of itself": "&a {x: *a}", "key of itself": "&a {? *a : 1}",
    "deep list": "a: " + "[" * 20000 + "]" * 20000,
    "deep mapping": "a: " + "{a: " * 20000 + "1" + "}" * 20000,
    "deep block": "\n".join(" " * n + "a:" for n in range(2000)),
    "900 deep": "a: " + "[" * 900 + "]" * 900, "300 deep": "a: " + "[" * 300 + "]" * 300,
    "NUL": "a: \0", "UTF-16": "version: 1".encode("utf-16"), "not UTF-8": b"version: \xff\xfe", "empty": "",
    "number": "1", "list": "[1, 2]",
    "python object": "!!python/object/apply:os.system ['touch pwned']",
    "python name": "a: !!python/name:os.system",
    "long integer": "version: " + "1" * 5000, "long float": "version: " + "1" * 5000 + ".5",
    "long line": "a: " + "x" * 10_000_000,
    "many keys": "\n".join(f"k{n}: 1" for n in range(30_000)), "quoted escape": 'a: "\\UFFFFFFFF"',
    "lone surrogate": 'a: "\\ud800"',
}  # fmt: skip


def loaded(text: str | bytes, overrides: Sequence[str] = (), smoke: bool = False) -> str:
    """A recipe that is valid means the same after it was written and read again."""
    path = work() / f"mutant-{os.getpid()}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    recipe = Recipe.load(path, overrides, smoke=smoke)
    if Recipe.parse(recipe.to_yaml(), "again", []).to_dict() != recipe.to_dict():
        raise Wrong("valid, another one after a round trip")
    return "valid"


def mutated(text: str, rng: random.Random) -> str:
    """A recipe in which some lines are others."""
    lines = text.splitlines()
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        lines = _with_another_line(lines, rng) or [""]
    return "\n".join(lines)


def _with_another_line(lines: list[str], rng: random.Random) -> list[str]:
    how = rng.choice(
        ["value", "value", "value", "byte", "delete", "double", "token", "swap", "indent", "key"]
    )
    at = rng.randrange(len(lines))
    line, token = lines[at], rng.choice(TOKENS)
    place = rng.randrange(len(line) + 1)
    if how == "delete":
        return lines[:at] + lines[at + 1 :]
    if how == "double":
        return [*lines[:at], line, *lines[at:]]
    new = list(lines)
    if how == "swap":
        other = rng.randrange(len(lines))
        new[at], new[other] = new[other], new[at]
    elif how in ("value", "key") and ":" in line:
        key, _, value = line.partition(":")
        new[at] = f"{key}: {token}" if how == "value" else f"{token}:{value}"
    elif how == "byte":
        letter = chr(rng.choice([rng.randrange(128), rng.randrange(0x3000), 0xFEFF]))
        new[at] = line[:place] + letter + line[place + rng.randrange(2) :]
    elif how == "token":
        new[at] = line[:place] + token + line[place:]
    else:
        new[at] = " " * rng.randrange(5) + line.lstrip()
    return new


def case(number: int, recipes: Sequence[str]) -> Case:
    """The case of a number: mostly a recipe."""
    rng = random.Random(number)
    kind = rng.choice(["mutant"] * 6 + ["set", "set", "subject", "arguments", "sides"])
    text = "".join(rng.choice(LETTERS) for _ in range(rng.randrange(1, 12)))
    recipe = rng.choice(recipes)
    if kind == "mutant":
        return Case(kind, functools.partial(loaded, mutated(recipe, rng), smoke=rng.random() < 0.2))
    if kind == "set":
        key = rng.choice(KEYS)
        given = rng.choice([f"{key}={text}", f"{key}={rng.choice(TOKENS)}", text])
        return Case(f"set {given[:60]!r}", functools.partial(loaded, recipe, [given]))
    if kind == "subject":
        begin = rng.choice(["operator:", "zoo:", "layer:", "model:", "", "./"])
        name = rng.choice(["l0:lambda=", "rof:weight=", "lstm:hidden_size=", "rof", ""])
        given = begin + name + rng.choice([text, *TOKENS])
        return Case(f"subject {given[:60]!r}", functools.partial(_read, subject.load, given))
    if kind == "arguments":
        return Case(f"arguments {text[:60]!r}", functools.partial(_read, signature.split_arguments, text))
    sides = ["lstm", "can24", "vs", text, "zoo:rof", f"sru:input_size={rng.choice(TOKENS)}"]
    words = [rng.choice(sides) for _ in range(rng.randrange(1, 4))]
    settings = rng.choice([{}, {"hidden_size": 3}])
    return Case(f"sides {words!r}", functools.partial(_read, read_sides, words, settings))


def _read(reader: object, *given: object) -> str:
    reader(*given)  # type: ignore[operator]
    return "read"


def main() -> int:
    """The campaign; its exit code."""
    given = arguments(2000)
    folder = os.environ.get("RECIPES") or str(resources.files("compressnet_recipes"))
    recipes = [path.read_text() for path in sorted(Path(folder).glob("*.yaml"))]
    for text in recipes:
        loaded(text)  # imports what cases need: no case shall wait for it
    attacks = [Case(name, functools.partial(loaded, text)) for name, text in ATTACKS.items()]

    def numbered(number: int) -> Case:
        at = number - given.first
        return attacks[at] if at < len(attacks) else case(number - len(attacks), recipes)

    every = Arguments(given.cases + len(attacks), given.first)
    return campaign("recipes, --set, subjects", numbered, every, lines=LINES_OF_A_RECIPE).finish()


if __name__ == "__main__":
    sys.exit(main())
