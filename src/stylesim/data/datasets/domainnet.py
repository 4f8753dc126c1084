"""DomainNet as the paper evaluates it: the domain is the style, and queries and gallery share no class.

The paper's split of the classes was never published, so this one is an approximation.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.file_names import path_parts, printable
from stylesim.core.image_folders import image_files, is_visible
from stylesim.core.text_files import read_text
from stylesim.data.datasets.evaluation_sets import Census, summary
from stylesim.data.datasets.word_vectors import mean_vectors, two_means
from stylesim.data.image_tables import write_image_table
from stylesim.data.labels import clean_label
from stylesim.data.sample import Sample

LEFT_OUT = "quickdraw"
"""The domain that the paper leaves out."""

logger = logging.getLogger(__name__)


class DomainNet:
    """DomainNet (CSD, section 5.1) without Quickdraw: 20,000 queries of some classes, all images of the others.

    Images are tagged `domain:x`, and their content is their class. The classes of the queries come from a list, or from
    word vectors: the names of the classes are put into two clusters, and the smaller cluster gives the queries. A class
    whose name has no vector stays in the gallery.

    Args:
        root: The folder with `<domain>/<class>/<image>`.
        spec: Function that makes a `RetrievalSpec` from `query`, `gallery` and `relevant`.
        query_classes: A file with one class of the queries in each line.
        vectors: A text file of word vectors (of word2vec or GloVe, `.gz` or plain), used without `query_classes`.
        n_queries: Largest number of queries, which are chosen by a hash of `seed` and id; None takes all.
        seed: See `n_queries`.
        relevant: The retrieval sets by name, each a glob over tags.
        tables: The folder that gets `domainnet-query.parquet` and `domainnet-database.parquet`, which list what was
            evaluated; None means a temporary folder.
    """

    def __init__(
        self,
        root: str,
        *,
        spec: Callable[..., Any],
        query_classes: str | None = None,
        vectors: str | None = None,
        n_queries: int | None = 20_000,
        seed: int = 0,
        relevant: Mapping[str, str] | None = None,
        tables: str | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.query_classes, self.vectors = query_classes, vectors
        self.n_queries, self.seed = n_queries, seed
        self.spec, self.relevant = spec, dict(relevant or {"domainnet": "domain:*"})
        self.tables = tables

    def retrieval_sets(self) -> dict[str, Any]:
        """Return a `RetrievalSpec` for each of `relevant`, and log what was found and how the classes were split.

        Raises:
            ConfigError: If the split is not given.
            DataError: If the folder is not DomainNet, or the split leaves one side empty.
        """
        samples = _find_samples(self.root)
        classes = sorted({str(sample.content) for sample in samples})
        of_queries, how = self._split(classes)
        gallery = [sample for sample in samples if sample.content not in of_queries]
        candidates = [sample for sample in samples if sample.content in of_queries]
        by_hash = sorted(candidates, key=lambda sample: _hash(self.seed, sample.id))
        queries = sorted(by_hash[: self.n_queries], key=lambda sample: sample.id)
        if not queries or not gallery:
            raise DataError(
                f"The split of {self.root} must give queries and a gallery, got {len(queries):,} queries and"
                f" {len(gallery):,} gallery images. {how}"
            )
        found = summary(f"DomainNet {self.root}", Census.of(queries), Census.of(gallery), self.relevant)
        logger.info("%s\n  %s\n  The paper's split was never published: this one is an approximation.", found, how)
        folder = Path(self.tables or tempfile.mkdtemp(prefix="stylesim-"))
        query = write_image_table(queries, folder / "domainnet-query.parquet")
        database = write_image_table(gallery, folder / "domainnet-database.parquet")
        return {
            name: self.spec(query=[query], gallery=[database], relevant=glob) for name, glob in self.relevant.items()
        }

    def _split(self, classes: Sequence[str]) -> tuple[set[str], str]:
        """Return the classes of the queries, and a sentence on where they come from."""
        if self.query_classes:
            of_queries = _read_list(Path(self.query_classes).expanduser(), classes)
            return of_queries, f"{len(of_queries)} of {len(classes)} classes are queries, as {self.query_classes} says."
        if not self.vectors:
            raise ConfigError(
                "The paper's split of DomainNet was never published. Give the classes of the queries, one per line,"
                " with data.query_classes=FILE; or word vectors as text (word2vec, GloVe), to rebuild it, with"
                " data.vectors=FILE."
            )
        of_queries, unknown = split_classes(classes, Path(self.vectors).expanduser())
        lost = f" Without a vector, and so in the gallery: {', '.join(unknown)}." if unknown else ""
        how = f"{len(of_queries)} of {len(classes)} classes are queries: the smaller cluster of {self.vectors}.{lost}"
        return of_queries, how


def split_classes(classes: Sequence[str], vectors: Path) -> tuple[set[str], list[str]]:
    """Divide classes into two clusters by the word vectors of their names.

    The result depends on the names and the vectors alone. Of two clusters of equal size, the one without the first
    class counts as the smaller.

    Args:
        classes: Names of the classes.
        vectors: A text file of word vectors.

    Returns:
        The classes of the smaller cluster, and those that have no vector.

    Raises:
        DataError: As `mean_vectors` does.
    """
    spellings = {name: [[name], [name.lower()], re.findall(r"[^\W_]+", name.lower())] for name in classes}
    known = mean_vectors(vectors, spellings)
    names = sorted(known)
    second = two_means([known[name] for name in names])
    clusters = [[name for name, other in zip(names, second, strict=True) if bool(other) == side] for side in (0, 1)]
    smaller = min(clusters, key=lambda cluster: (len(cluster), names[0] in cluster))
    return set(smaller), [name for name in classes if name not in known]


def _find_samples(root: Path) -> list[Sample]:
    """Return all images of the domains, ordered by id; `Sample.content` is the class."""
    if not root.is_dir():
        raise ConfigError(f"data.root must be the folder of DomainNet's domains, but there is no folder {root}.")
    samples = []
    for file in image_files(root):
        parts = path_parts(file.relative_to(root).as_posix())
        if len(parts) == 3 and parts[0].lower() != LEFT_OUT:
            domain, name = clean_label(parts[0]), clean_label(parts[1])
            samples.append(Sample("/".join(parts), file, [f"domain:{domain}"], name, printable(root / parts[0])))
    if len({sample.source for sample in samples}) < 2:
        folders = sorted(printable(child.name) for child in root.iterdir() if child.is_dir() and is_visible(child.name))
        raise DataError(
            f"{root} is not DomainNet: expected folders of domains (clipart, infograph, painting, real, sketch) with a"
            f" folder for each class, got {', '.join(folders) or 'no folder'}."
        )
    return sorted(samples, key=lambda sample: sample.id)


def _read_list(file: Path, classes: Sequence[str]) -> set[str]:
    try:
        listed = {clean_label(line) for line in read_text(file).splitlines()} - {""}
    except (OSError, DataError) as error:
        raise ConfigError(f"data.query_classes={file} cannot be read as a list of classes ({error}).") from error
    if unknown := sorted(listed.difference(classes)):
        near = difflib.get_close_matches(unknown[0], classes, n=3, cutoff=0)
        raise ConfigError(
            f"{file} lists {len(unknown)} classes that do not exist; the first is {unknown[0]!r}, and the nearest ones"
            f" are {', '.join(near)}."
        )
    return listed


def _hash(seed: int, id: str) -> bytes:
    return hashlib.sha1(f"{seed} {id}".encode()).digest()
