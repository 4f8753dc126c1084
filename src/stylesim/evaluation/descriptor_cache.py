"""A folder of descriptor sets shared by all runs, so that images are embedded only once per encoder and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from filelock import FileLock

from stylesim.core.errors import ConfigError
from stylesim.data.open_samples import Samples
from stylesim.data.roots import Root
from stylesim.data.shards.shard_samples import ShardSamples
from stylesim.retrieval.descriptor_set import DescriptorSet

if TYPE_CHECKING:
    from stylesim.encoders import StyleEncoder


def cache_key(encoder: StyleEncoder, encoder_digest: str, root: Root, samples: Samples, settings: list[Any]) -> str:
    """Return 16 hex digits over everything that a set of descriptors depends on, without opening an image.

    A shard contributes the SHA-256 from its index, which covers its labels. An image file contributes its path, size,
    change time and labels, so no image has to be read.
    """
    images: list[Any] = []
    for part in samples.parts:
        if isinstance(part, ShardSamples):
            images += [(shard.name, shard.count, shard.sha256) for index in part.indices for shard in index.shards]
        else:
            images += [(one.id, _file_state(Path(str(one.image))), list(one.tags), one.content) for one in part]
    # The factory's arguments can choose what weights and preprocessing do not show, such as the layer. A class without
    # a factory must express its arguments in the name of its provenance, which the digest contains.
    made_by = [version("stylesim"), type(encoder).__qualname__, encoder_digest, encoder.config]
    made_by += [asdict(encoder.preprocessing), *settings]
    return hashlib.sha256(json.dumps([made_by, root.name, images]).encode()).hexdigest()[:16]


def get_or_embed(
    cached: Path, embed_into: Callable[[Path | None], DescriptorSet], rank: int, world: int
) -> DescriptorSet:
    """Load a set from the cache, or embed it and save it there.

    If several jobs need the same set at the same time, as in a sweep, one embeds it and the others wait.

    Args:
        cached: The folder of the set in the cache.
        embed_into: Called on all ranks, with the folder to save to, or None to save nothing.
        rank: This process's rank.
        world: The world size.

    Returns:
        The set, on every rank.
    """
    cached.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if rank else FileLock(cached.with_name(f".{cached.name}.lock")):
        exists = [cached.is_dir()] * world
        if world > 1:  # all ranks must decide in the same way, even if only some of them can see the disk
            dist.all_gather_object(exists, cached.is_dir())
        if all(exists):
            return DescriptorSet.load(cached)
        return embed_into(None if exists[0] else cached)


def link(path: Path, cached: Path) -> None:
    """Make `path` a link to a set in the cache, replacing an earlier link.

    Raises:
        ConfigError: If `path` exists and is not a link.
    """
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        raise ConfigError(f"{path} already exists. Choose another run folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(cached, target_is_directory=True)


def _file_state(file: Path) -> tuple[str, int, int, int]:
    try:
        stat = file.stat()
    except OSError:  # embedding will list it as damaged
        return str(file.absolute()), -1, -1, -1
    # The change time (ctime) also differs if a file is replaced by one with the same mtime, or its permissions change.
    return str(file.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
