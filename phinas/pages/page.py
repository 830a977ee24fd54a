"""What the pages of all reports share: `page.html`, which their templates extend, and how they are filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from phinas.pages.style import svg

_LISTED = 12  # reasons of failures; the rest is counted


def render(template: Path, name: str, errors: Iterable[tuple[int, str]], config_text: str, **values: object) -> str:
    """`template`, filled in, as one HTML page that asks for no other file.

    template     a file that extends `page.html`, whose blocks say what differs from page to page.
    errors       number and reason of each evaluation that failed, in the order they finished.
    config_text  the text of `config.yaml`, shown as it is.
    values       all else that the template names. Text is escaped, unless it is Markup.

    Raises jinja2.UndefinedError where the template names something that was not given.
    """
    folders = [template.parent, Path(__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    failures = _by_reason(errors)
    return environment.get_template(template.name).render(
        name=name,
        failures=failures[:_LISTED],
        failures_left=len(failures[_LISTED:]),
        config_text=config_text,
        **values,
    )


def drawing(figure: Figure, label: str) -> Markup:
    """`figure` to stand in a page; `label` is read out in place of it, and differs from those of the page's others."""
    return Markup(svg(figure, label))


def _by_reason(errors: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    """Reasons of failure, the most frequent first; reasons that differ in numbers only are one."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for number, error in errors:
        groups.setdefault(re.sub(r"\d+(\.\d+)?", "0", error), []).append((number, error))
    ranked = sorted(groups.values(), key=lambda group: (-len(group), group[0][0]))
    return [{"count": len(group), "reason": group[0][1], "first": group[0][0]} for group in ranked]
