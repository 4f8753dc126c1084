"""List the commands of stylesim with the docstrings of their modules, without importing them."""

from __future__ import annotations

import ast
import inspect

from stylesim.core.conf import PACKAGE


def list_commands() -> dict[str, str]:
    """Return the name of each command with the first sentence of its module's docstring."""
    names = sorted(file.stem for file in PACKAGE.glob("[a-z]*.py"))
    return {name: read_docstring(name).partition("\n\n")[0].replace("\n", " ") for name in names}


def read_docstring(command: str) -> str:
    """Return the docstring of a command's module: a summary line, a blank line, examples."""
    tree = ast.parse((PACKAGE / f"{command}.py").read_text(encoding="utf-8"))
    return inspect.cleandoc(ast.get_docstring(tree) or "")
