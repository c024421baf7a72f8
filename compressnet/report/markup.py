"""HTML that cannot be broken by a name: whatever is no `Html` is escaped on its way in."""

from __future__ import annotations

import html
import re

# What steers, turns text around, or is no text: as for a terminal, but for the ends of lines and tabs.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_VOID = ("img", "input", "link", "meta")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | None


def text(value: object) -> Html:
    """`value` as text of a page; control characters but ends of lines are shown as Python writes them."""
    if isinstance(value, Html):
        return value
    plain = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(value))
    return Html(html.escape(plain))


def join(*children: Child) -> Html:
    """What stands one after the other; None is nothing."""
    return Html("".join(text(child) for child in children if child is not None))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element: `tag("td", "a < b", class_="name")`.

    Args:
        children: text, which is escaped, or `Html`.
        attributes: `class_` is class, `data_x` data-x; None and False are left out, True has no value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{text(value)}"')
    opening = Html(f"<{' '.join(words)}>")
    return opening if name in _VOID else Html(f"{opening}{join(*children)}</{name}>")
