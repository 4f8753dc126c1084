"""Embed images: write their descriptors into a folder that other commands and `DescriptorSet.load` read.

    stylesim embed images=/my/images checkpoint=outputs/.../checkpoints/best.safetensors out=my_descriptors
    stylesim embed images=/my/images model=frozen_lite0 parquet=my_images.parquet

After an interruption, the same command with the same out= continues.
"""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path

from omegaconf import DictConfig
from pydantic import Field

from stylesim.core.errors import StylesimError
from stylesim.runtime.config import check_encoders
from stylesim.runtime.inputs import check_images, embed_roots, load_model
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings


class Settings(EmbeddingSettings):
    """The keys of `stylesim embed`."""

    images: str | list[str] = Field(
        description="A folder, a table of paths (.csv, .tsv, .parquet), shards with an index.json, or a list of these."
    )
    out: str | None = Field(
        None, description="A folder that does not exist yet; null is descriptors/ in the run folder."
    )
    parquet: str | None = Field(
        None, description="Also one file of ids, tags and descriptors, for pandas or a database."
    )


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
    described = embed_roots(load_model(cfg), roots, out, cfg)
    if parquet is not None:
        write_parquet(out, parquet)
    count, dim = described.descriptors.shape
    print(f"{count:,} descriptors of {dim} numbers: {out}", flush=True)
    return {"images": count, "damaged": len(described.damaged), "dim": dim}


def write_parquet(folder: Path, path: Path) -> None:
    """One file of a descriptor set: its items, and `descriptor` (a list of d float32)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stylesim.retrieval.descriptor_set import DescriptorSet

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
