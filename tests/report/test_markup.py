"""What names of strangers can do to a page: nothing."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from compressnet.report.markup import Html, join, tag, text


class _Reader(HTMLParser):
    """Collects elements and text as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> _Reader:
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text())
def test_text_stays_text(name: str) -> None:
    page = read(tag("p", name, title=name))
    assert [element for element, _ in page.elements] == ["p"]
    page.text.encode()
    if name.isprintable():
        assert page.text == name
        assert page.elements[0][1]["title"] == name


def test_what_steers_is_shown_and_ends_of_lines_are_kept() -> None:
    assert text("a\x1b[31m\u202eb\udcff\n\tc") == "a\\x1b[31m\\u202eb\\udcff\n\tc"


def test_markup_is_not_escaped_twice() -> None:
    inner = tag("b", "a < b")
    assert tag("p", inner, None, "&") == "<p><b>a &lt; b</b>&amp;</p>"
    assert join("<", Html("<br>")) == "&lt;<br>"


def test_attributes() -> None:
    made = tag("input", type="radio", class_="x", data_left='"', checked=True, hidden=False, id=None)
    assert made == '<input type="radio" class="x" data-left="&quot;" checked>'
