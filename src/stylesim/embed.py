"""python -m stylesim.embed: images to descriptors, in a folder that `stylesim.score` and your own programs read."""

from __future__ import annotations

import sys
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stylesim.config import check_encoders
from stylesim.data.roots import Root, name_roots
from stylesim.errors import StylesimError
from stylesim.launch import run, write_json

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder
    from stylesim.retrieval.descriptors import DescriptorSet

ROOTS = "roots.json"
"""File of a descriptor set that says where its images lie, so that they can be shown: name of a root -> location."""
NAMED = 5
"""Damaged images that are printed; all are in the set's `meta.json`."""


def main(cfg: DictConfig) -> dict[str, float]:
    """Describe images with an encoder that exists; returns how many, how many were damaged, and the dimension.

    Leaves a DescriptorSet in `cfg.out`, or in `descriptors` of the run folder, and a table in `cfg.parquet` if asked.

    Raises:
        StylesimError: If images or weights are missing, the head has never been trained, or `out` exists.
    """
    roots = check_images(cfg, "images")
    check_encoders(cfg)
    out = Path(expanduser(cfg.out)) if cfg.out else Path(cfg.run_dir) / "descriptors"
    parquet = Path(expanduser(cfg.parquet)) if cfg.parquet else None
    if parquet is not None and parquet.is_dir():
        raise StylesimError(f"parquet={parquet} is a folder: name the file that the table goes to.")
    if out.exists():
        raise StylesimError(f"out={out} exists already, so this was done before: choose another folder, or delete it.")
    described = embed(load_model(cfg), roots, out, cfg)
    if parquet is not None:
        write_parquet(out, parquet)
    count, dim = described.descriptors.shape
    print(f"{count:,} descriptors of {dim} numbers: {out}", flush=True)
    return {"images": count, "damaged": len(described.damaged), "dim": dim}


def embed(encoder: StyleEncoder, roots: list[Root], out: Path, cfg: DictConfig) -> DescriptorSet:
    """Describe the images of these roots into `out` (`describe`), note where they lie, and name the damaged."""
    from stylesim.data.items import open_items
    from stylesim.describe import describe

    described = describe(
        encoder,
        open_items(roots),
        out,
        batch_size=cfg.batch_size,
        device=cfg.device,
        precision=cfg.precision,
        flips=cfg.flips,
    )
    write_json(out / ROOTS, {r.name: r.location if r.folder is None else str(r.folder.absolute()) for r in roots})
    for name, reason in described.damaged[:NAMED]:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    if (more := len(described.damaged) - NAMED) > 0:
        print(f"left out: {more:,} more, all named in {out / 'meta.json'}", file=sys.stderr)
    return described


def check_images(cfg: DictConfig, key: str) -> list[Root]:
    """What a key of the configuration names; StylesimError where nothing is there."""
    given = cfg[key] if OmegaConf.is_list(cfg[key]) else [cfg[key]]
    roots = name_roots([expanduser(str(location)) for location in given])
    for root in roots:
        if root.folder is not None and not root.folder.exists():
            raise StylesimError(
                f"{key}={root.location}: there is nothing at {root.folder.absolute()}. Name a folder of images, a table"
                " of their paths (.csv, .tsv, .parquet), or a folder of shards."
            )
    return roots


def load_model(cfg: DictConfig) -> StyleEncoder:
    """The encoder of `checkpoint` or `model`; StylesimError if its head has never been trained (and may not be)."""
    from stylesim.encoders.checkpoint import load_checkpoint

    encoder = load_checkpoint(cfg.checkpoint) if cfg.checkpoint else instantiate(cfg.model)
    if not cfg.allow_untrained:
        encoder.provenance.require_trained_head()
    print(f"{encoder.provenance.name}, {encoder.provenance.weights}", flush=True)
    return encoder


def write_parquet(folder: Path, path: Path) -> None:
    """One file of a descriptor set: its items, and `descriptor` (a list of d float32)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stylesim.retrieval.descriptors import DescriptorSet

    descriptors = DescriptorSet.load(folder).descriptors  # stay on disk while they are written
    column = pa.FixedSizeListArray.from_arrays(pa.array(descriptors.reshape(-1)), descriptors.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(path.name + ".writing")
    pq.write_table(
        pq.read_table(folder / "items.parquet").append_column("descriptor", column), hidden, row_group_size=8192
    )
    hidden.rename(path)


if __name__ == "__main__":
    run("embed")
