"""`python -m stylesim.encoders.export CHECKPOINT OUT`: our checkpoint in the published CSD format."""

from __future__ import annotations

import argparse
import sys

from stylesim.errors import StylesimError


def main(arguments: list[str] | None = None) -> int:
    """Export; 0, or 2 after a sentence about what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m stylesim.encoders.export", description=__doc__)
    parser.add_argument("checkpoint", help="the .safetensors that training wrote")
    parser.add_argument("out", help="the file to write, which the published CSD code can load")
    options = parser.parse_args(arguments)

    from stylesim.encoders.checkpoint import export_csd, load_checkpoint

    try:
        export_csd(load_checkpoint(options.checkpoint), options.out)
    except StylesimError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: CSD checkpoint of {options.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
