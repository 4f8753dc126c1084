"""List the encoders with their size, their licence, and whether their weights are on this machine."""

from __future__ import annotations

import argparse

from stylesim.encoders.catalogue import ModelInfo, list_models

HEADER = ("model", "parameters", "dim", "weights", "licence", "summary")


def main() -> None:
    """Print a table of the encoders that `model=NAME` and `stylesim.load_encoder(NAME)` take."""
    argparse.ArgumentParser(prog="stylesim models", description=__doc__).parse_args()
    rows = [HEADER, *map(_row, list_models())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(model: ModelInfo) -> tuple[str, ...]:
    parameters = "" if model.parameters is None else f"{model.parameters:g} M"
    dim = "" if model.dim is None else str(model.dim)
    return model.name, parameters, dim, model.weights, model.licence or "", model.summary


if __name__ == "__main__":
    main()
