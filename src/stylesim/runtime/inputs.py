"""What several commands share: images named by a key, the encoder asked for, and embedding the one with the other."""

from __future__ import annotations

import sys
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.data.roots import Root, name_roots

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder
    from stylesim.retrieval.descriptor_set import DescriptorSet

ROOTS = "roots.json"
"""File of a descriptor set that says where its images lie, so that they can be shown: name of a root -> location."""
NAMED = 5
"""Damaged images that are printed; all are in the set's `meta.json`."""


def embed_roots(encoder: StyleEncoder, roots: list[Root], out: Path, cfg: DictConfig) -> DescriptorSet:
    """Describe the images of these roots into `out` (`describe`), note where they lie, and name the damaged."""
    from stylesim.data.open_samples import open_samples
    from stylesim.evaluation.embed import embed

    described = embed(
        encoder,
        open_samples(roots),
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
    from stylesim.encoders.weights.checkpoint import load_checkpoint

    encoder = load_checkpoint(cfg.checkpoint) if cfg.checkpoint else instantiate(cfg.model)
    if not cfg.allow_untrained:
        encoder.provenance.require_trained_head()
    print(f"{encoder.provenance.name}, {encoder.provenance.weights}", flush=True)
    return encoder
