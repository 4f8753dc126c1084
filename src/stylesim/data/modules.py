"""Data modules for training: on shards, and on image files."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import DataError
from stylesim.core.file_names import printable
from stylesim.data.datasets.folder import FileSource, find_samples, hold_out
from stylesim.data.image_tables import write_image_table
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.sampling.balance import parse_balance
from stylesim.data.shards.shard_index import Index, load_index
from stylesim.data.style_data_module import StyleDataModule

WINDOW = 10_000
"""Number of image files from which a balanced micro-batch is chosen by their tags; only the chosen ones are read."""
EXAMPLES = 5
"""Number of missing files that a warning names."""

logger = logging.getLogger(__name__)


class ShardDataModule(StyleDataModule):
    """Train on WebDataset shards with an `index.json`: local folders, http(s) prefixes or `pipe:` commands.

    Args:
        root: See `StyleDataModule`.
        shuffle_buffer: Number of encoded images that each worker holds to shuffle or to choose from.
        balance: Choose each micro-batch from the buffer by the tags of its images, instead of showing each image once
            in an epoch: `inverse_frequency`, or `PxK` for K images of each of P tags (see `sampling.balance`). No image
            occurs twice in a global batch. Images of rare tags occur in many batches, with different views, and some
            images of frequent tags in none.
        options: See `StyleDataModule`.
    """

    def __init__(
        self,
        root: str | Sequence[str] | Mapping[str, float],
        *,
        shuffle_buffer: int = 2000,
        balance: str | None = None,
        **options: Any,
    ):
        super().__init__(root, **options)
        self.buffer, self.balance = shuffle_buffer, balance
        if balance:
            parse_balance(balance, self.batch_size)

    def open_root(self, root: Root) -> Index:
        """Read the index of one root."""
        return load_index(root)


class FolderDataModule(StyleDataModule):
    """Train on image files: a folder for each label, or tables of paths and tags (see `find_samples`).

    Args:
        root: See `StyleDataModule`. Files that a table names but that do not exist are left out; a warning counts them.
        balance: As in `ShardDataModule`; a micro-batch is chosen by the tags of `WINDOW` images.
        validation: Function that makes a `RetrievalSpec` from `query=[...]`. If given, some images of each tag that has
            at least four are held out of training; they are the queries and the gallery of the retrieval set
            "validation".
        validation_share: Share of the images of a tag, in [0, 1], that is held out.
        options: See `StyleDataModule`.
    """

    def __init__(
        self,
        root: str | Sequence[str] | Mapping[str, float],
        *,
        balance: str | None = None,
        validation: Callable[..., Any] | None = None,
        validation_share: float = 0.1,
        **options: Any,
    ):
        super().__init__(root, **options)
        self.balance = balance
        if balance:
            parse_balance(balance, self.batch_size)
            self.buffer = WINDOW
        self.held_out: list[Sample] = []
        self.validation, self.validation_share = validation, validation_share

    def open_root(self, root: Root) -> FileSource:
        """Find the image files of one root, and hold some of them out."""
        samples = _existing(find_samples(root.location, root.name), root)
        held_out = hold_out(samples, self.validation_share) if self.validation else set()
        self.held_out += [sample for sample in samples if sample.id in held_out]
        return FileSource(root, tuple(sample for sample in samples if sample.id not in held_out))

    def retrieval_sets(self) -> dict[str, Any]:
        """Return the probes, and the held-out images as "validation", listed in a table in the run's folder.

        Raises:
            DataError: If no tag has four images.
        """
        if self.validation is None:
            return super().retrieval_sets()
        assert self.sources  # opening them fills self.held_out
        if not self.held_out:
            raise DataError(
                f"No tag of {', '.join(map(str, self.locations))} has four images, so that some could be held out for"
                " validation: add images, or set data.validation=null."
            )
        folder = Path(self.trainer.default_root_dir if self.trainer else tempfile.mkdtemp(prefix="stylesim-"))
        digest = hashlib.sha256(
            "\n".join(printable(str(sample.image)) for sample in self.held_out).encode()
        ).hexdigest()[:8]
        table = folder / f"validation-{digest}.parquet"
        # The ids of the table are the paths, as in every earlier version.
        write_image_table([s._replace(id=printable(Path(str(s.image)).absolute())) for s in self.held_out], table)
        return {**self.probes, "validation": self.validation(query=[str(table)])}


def _existing(samples: Sequence[Sample], root: Root) -> list[Sample]:
    """Return the samples whose file exists; a warning names the others. Images found in a folder are not checked."""
    if root.folder is not None and root.folder.is_dir():
        return list(samples)
    present, missing = [], []
    for sample in samples:
        (present if os.path.isfile(str(sample.image)) else missing).append(sample)
    if missing:
        logger.warning(
            "%s of the %s images that %s names do not exist, and are left out: %s%s.",
            f"{len(missing):,}",
            f"{len(samples):,}",
            root.location,
            ", ".join(printable(str(sample.image)) for sample in missing[:EXAMPLES]),
            ", ..." if len(missing) > EXAMPLES else "",
        )
    return present
