"""HTML that cannot be broken by the texts in it: whatever is not :class:`Markup` is escaped. Pure.

Names, labels and reasons come from other machines. They are shown as the text that they are: markup in them is escaped, and characters
that would act on the reader's screen instead of being read (control characters, marks that turn the direction of writing) become
U+FFFD. Every element is made by :func:`element`, so no text can get around this.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from typing import Final, TypeAlias

__all__ = ["TEXT_MAX", "Child", "Markup", "element", "shown", "void"]

TEXT_MAX: Final = 500
"""Characters of one text that are shown. Longer ones end in an ellipsis: a reason of a megabyte is nobody's to read here."""

_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAME: Final = re.compile("[a-z][a-z0-9-]*")


class Markup(str):
    """A text that is HTML already. Made by :func:`element` and :func:`void` alone."""

    __slots__ = ()


Child: TypeAlias = "str | int | Markup"


def shown(value: object) -> str:
    """The text of a value as it may be shown: what is unseen is made visible, what is endless is cut."""
    text = str(value)
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX - 1] + "…"
    if text.isprintable():  # nearly always, and far sooner known
        return text
    return _UNSEEN.sub("\ufffd", text)


@cache
def _attribute_name(key: str) -> str:
    name = key.rstrip("_").replace("_", "-")
    if not _NAME.fullmatch(name) or name.startswith("on") or name == "style":
        raise ValueError(f"{name!r} is no attribute that this page has")
    return name


def _attributes(attributes: dict[str, Child | None]) -> str:
    parts = []
    for key, value in attributes.items():
        name = _attribute_name(key)
        if value is not None:
            parts.append(f' {name}="{escape(shown(value))}"')
    return "".join(parts)


@cache
def _element_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no element")
    return name


def _open(name: str, attributes: dict[str, Child | None]) -> str:
    return f"<{_element_name(name)}{_attributes(attributes)}>"


def element(name: str, /, *children: Child, **attributes: Child | None) -> Markup:
    """``<name attributes>children</name>``.

    Args:
        name: Of the element.
        children: What is in it; all but :class:`Markup` is escaped.
        attributes: ``class_`` is written ``class``, ``data_newest`` is ``data-newest``; those that are None are left out.

    Raises:
        ValueError: A name is none, or is one that the content security policy would void (``style``, ``on...``).
    """
    inside = "".join(child if isinstance(child, Markup) else escape(shown(child)) for child in children)
    return Markup(f"{_open(name, attributes)}{inside}</{name}>")


def void(name: str, /, **attributes: Child | None) -> Markup:
    """``<name attributes>``, for the elements that have no inside: ``meta``, ``link``, ``input``."""
    return Markup(_open(name, attributes))
