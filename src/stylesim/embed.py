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

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path
from stylesim.runtime.embedding_run import embed_roots, load_model
from stylesim.runtime.existence_checks import check_encoders, check_images
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
    """Embed `cfg.images` and return the number of images, of damaged images, and the dimension.

    Writes a DescriptorSet to `cfg.out`, or to `descriptors` in the run folder, and a table to `cfg.parquet` if given.

    Raises:
        ConfigError: If images are missing, or `out` exists.
        WeightsError: If weights are missing, or the encoder's head is untrained.
    """
    roots = check_images(cfg, "images")
    check_encoders(cfg)
    out = Path(expanduser(cfg.out)) if cfg.out else Path(cfg.run_dir) / "descriptors"
    parquet = Path(expanduser(cfg.parquet)) if cfg.parquet else None
    if parquet is not None and parquet.is_dir():
        raise ConfigError(f"parquet must be a file to write, got the folder {parquet}.")
    if out.exists():
        raise ConfigError(f"out must be a new folder, but {out} exists already. Name another one, or delete it.")
    descriptors = embed_roots(load_model(cfg), roots, out, cfg)
    if parquet is not None:
        write_parquet(out, parquet)
    count, dim = descriptors.descriptors.shape
    print(f"{count:,} descriptors of dimension {dim}: {out}", flush=True)
    return {"images": count, "damaged": len(descriptors.damaged), "dim": dim}


def write_parquet(folder: Path, path: Path) -> None:
    """Write a descriptor set as one parquet file: its items, and a column `descriptor` of lists of d float32.

    Args:
        folder: The folder of the descriptor set.
        path: The file to write.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stylesim.retrieval.descriptor_set import DescriptorSet

    descriptors = DescriptorSet.load(folder).descriptors  # memory-mapped
    column = pa.FixedSizeListArray.from_arrays(pa.array(descriptors.reshape(-1)), descriptors.shape[1])
    table = pq.read_table(folder / "items.parquet").append_column("descriptor", column)
    with atomic_path(path) as partial:
        pq.write_table(table, partial, row_group_size=8192)


if __name__ == "__main__":
    run("embed")
