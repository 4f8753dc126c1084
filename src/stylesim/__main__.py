"""The program `stylesim`: `stylesim COMMAND ...` is `python -m stylesim.COMMAND ...`."""

from __future__ import annotations

import runpy
import sys

from stylesim.core.wording import suggest
from stylesim.runtime.commands import list_commands

USAGE = """\
Learn and measure artistic style in images.

stylesim COMMAND [GROUP=NAME ...] [KEY=VALUE ...]

Commands:
{commands}

stylesim COMMAND --help lists the groups and keys of a command; stylesim --version shows the version."""


def main() -> None:
    """Run the command that the first argument names, with the rest of the arguments."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    commands = list_commands()
    if command in ("-h", "--help"):
        width = max(map(len, commands))
        print(USAGE.format(commands="\n".join(f"  {name:{width}}  {summary}" for name, summary in commands.items())))
    elif command == "--version":
        from stylesim import __version__

        print(__version__)
    elif command not in commands:
        sentence = f"{command} is not a command.{suggest(command, commands)} stylesim --help lists all of them."
        print(f"stylesim: {sentence}", file=sys.stderr)
        sys.exit(2)
    else:
        del sys.argv[1]
        runpy.run_module(f"stylesim.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
