"""Sphinx: `make docs` builds docs/_build/html. Warnings are errors: a broken link or picture fails."""

from __future__ import annotations

import inspect
from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

import compressnet.export

# A package that is a function too, and shown as that.
compressnet.export = compressnet.export.export

project = "compressnet"
author = "The compressnet developers"
copyright = "The compressnet developers, Apache-2.0"
release = metadata.version("compressnet")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"compressnet {release}"
smartquotes = False  # options begin with two hyphens
html_show_sourcelink = False
nitpicky = True
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_rtype = False
# Types of other packages have pages that cannot be reached when the manual is built without a network.
nitpick_ignore_regex = [("py:.*", r".*")]
html_theme_options = {"source_repository": "", "navigation_with_keys": True}


class CommandHelp(Directive):
    """`{command-help} apply`: the arguments and options of a command, as the program itself tells them."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        import typer
        from compressnet_cli.main import app

        command: Any = typer.main.get_command(app)
        words = self.arguments[0].split()
        for word in words:
            command = command.commands[word]
        usage = " ".join(["compressnet", *words, *self._usage(command)])
        lines = ["```text", usage, "```", ""]
        lines += self._table("Arguments", [p for p in command.params if p.param_type_name == "argument"])
        lines += self._table(
            "Options", [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
        )
        return self._parsed(lines)

    def _usage(self, command: Any) -> list[str]:
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        return [*(["[OPTIONS]"] if len(command.params) > len(arguments) else []), *map(_metavar, arguments)]

    def _table(self, title: str, parameters: list[Any]) -> list[str]:
        if not parameters:
            return []
        lines = [f"| {title} | |", "| --- | --- |"]
        for p in parameters:
            names = [f"`{name}`" for name in p.opts] if p.param_type_name == "option" else []
            metavar = [] if getattr(p, "is_flag", False) else [f"`{_metavar(p)}`"]
            text = (p.help or "").replace("|", "\\|").replace("$", "\\$").replace("*", "\\*")
            lines.append(f"| {' '.join([', '.join(names), *metavar]).strip()} | {text} |")
        return [*lines, ""]

    def _parsed(self, lines: list[str]) -> list[nodes.Node]:
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, "command-help"), self.content_offset, node)
        return node.children


def _metavar(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


class Registered(Directive):
    """`{registered} layer`: every entry of a registry, with its arguments and the first words on it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from compressnet import registry, signature

        kind = self.arguments[0]
        lines = ["| name | arguments | |", "| --- | --- | --- |"]
        for name in sorted(registry.REGISTRIES[kind]):
            target = registry.find(kind, name)
            arguments = ", ".join(f"`{key}`" for key in signature.parameters(target))
            summary = (inspect.getdoc(target) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
            lines.append(f"| `{name}` | {arguments or '-'} | {summary} |")
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, "registered"), self.content_offset, node)
        return node.children


def setup(app: Any) -> None:
    app.add_directive("command-help", CommandHelp)
    app.add_directive("registered", Registered)
