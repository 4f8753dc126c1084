"""Fills the page of the commands from their typed keys and their configuration groups, when the site is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stylesim.runtime.commands import list_commands, read_docstring
from stylesim.runtime.settings import describe_groups, describe_keys, load_settings


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the line `COMMANDS` of a page by a section for each command."""
    return markdown.replace("\nCOMMANDS\n", "\n" + "\n".join(_sections()) + "\n")


def _sections() -> Iterator[str]:
    for name in list_commands():
        lines = read_docstring(name).splitlines()
        examples = [line.strip() for line in lines if line.strip().startswith("stylesim ")]
        yield f"## stylesim {name}\n"
        yield "\n".join(line for line in lines if line.strip() not in examples) + "\n"
        if examples:
            yield "\n".join(["```sh", *examples, "```", ""])
        if not _has_settings(name):
            continue
        if groups := describe_groups(name):
            yield "| group | default | options |\n|---|---|---|"
            for group in groups:
                yield f"| `{group.name}` | `{group.default}` | {', '.join(f'`{option}`' for option in group.options)} |"
            yield ""
        yield "| key | type | default | description |\n|---|---|---|---|"
        for key in describe_keys(name):
            yield f"| `{key.name}` | {_cell(key.type)} | `{_cell(key.default)}` | {_cell(key.description)} |"
        yield ""


def _has_settings(name: str) -> bool:
    """Return whether the command is a Hydra application; `stylesim models` is not."""
    try:
        load_settings(name)
    except AttributeError:
        return False
    return True


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
