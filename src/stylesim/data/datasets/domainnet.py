"""DomainNet as the paper scores it: the domain is the style, and no class is on both sides.

The paper's split of the classes was never published, so every rebuild is an approximation, and says so.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.core.image_folders import image_files
from stylesim.data.datasets.evaluation_sets import Census, summary
from stylesim.data.datasets.word_vectors import mean_vectors, two_means
from stylesim.data.image_tables import write_image_table
from stylesim.data.sample import Sample

LEFT_OUT = "quickdraw"


class DomainNet:
    """DomainNet (CSD, section 5.1) without Quickdraw: 20,000 queries of some classes, all images of the others.

    `root`: the folder with `<domain>/<class>/<image>`. Images are tagged `domain:x`, and their content is their class.
    The classes that query come from `query_classes`, a file with a class in each line; or else from `vectors`, a text
    file of word vectors (word2vec's or GloVe's, `.gz` or not): the names of the classes are put into two clusters, and
    those of the smaller one, the one of fewer classes, query. A class whose name has no vector stays in the gallery.

    `n_queries`: at most that many of the queries' images, the first by a hash with `seed`; None takes all. `relevant`,
    `spec` and `tables` as of `WikiArt`.
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
        """A `RetrievalSpec` for each of `relevant`; prints what was found and how the classes were split.

        Raises `StylesimError` where the folder is no DomainNet, or the split is not given or leaves one side empty.
        """
        items = _items(self.root)
        classes = sorted({str(item.content) for item in items})
        asked, how = self._split(classes)
        gallery = [item for item in items if item.content not in asked]
        by_hash = sorted((item for item in items if item.content in asked), key=lambda item: _hash(self.seed, item.id))
        queries = sorted(by_hash[: self.n_queries], key=lambda item: item.id)
        if not queries or not gallery:
            raise StylesimError(
                f"The split of {self.root} gives {len(queries):,} queries and {len(gallery):,} gallery images, and both"
                f" are needed. {how}"
            )
        print(summary(f"DomainNet {self.root}", Census.of(queries), Census.of(gallery), self.relevant))
        print(f"  {how}\n  An approximation: the split of the paper was never published.", flush=True)
        folder = Path(self.tables or tempfile.mkdtemp(prefix="stylesim-"))
        query = write_image_table(queries, folder / "domainnet-query.parquet")
        database = write_image_table(gallery, folder / "domainnet-database.parquet")
        return {
            name: self.spec(query=[query], gallery=[database], relevant=glob) for name, glob in self.relevant.items()
        }

    def _split(self, classes: Sequence[str]) -> tuple[set[str], str]:
        """The classes that query, and a sentence on where they come from."""
        if self.query_classes:
            asked = _read_list(Path(self.query_classes).expanduser(), classes)
            return asked, f"{len(asked)} of {len(classes)} classes query, as {self.query_classes} lists them."
        if not self.vectors:
            raise StylesimError(
                "The paper's split of DomainNet was never published. Give the classes that query, one in a line, with"
                " data.query_classes=FILE; or data.vectors=FILE, word vectors as text (word2vec, GloVe), to rebuild it."
            )
        asked, unknown = split_classes(classes, Path(self.vectors).expanduser())
        lost = f" Without a vector, and so in the gallery: {', '.join(unknown)}." if unknown else ""
        return asked, f"{len(asked)} of {len(classes)} classes query: the smaller cluster by {self.vectors}.{lost}"


def split_classes(classes: Sequence[str], vectors: Path) -> tuple[set[str], list[str]]:
    """The classes of the smaller of two clusters of their names' word vectors, and those that have no vector.

    A function of the names and the vectors alone. Of two clusters of one size it is the one without the first class.
    Raises `StylesimError` as `mean_vectors` does.
    """
    spellings = {name: [[name], [name.lower()], re.findall(r"[^\W_]+", name.lower())] for name in classes}
    known = mean_vectors(vectors, spellings)
    names = sorted(known)
    second = two_means([known[name] for name in names])
    clusters = [[name for name, other in zip(names, second, strict=True) if bool(other) == side] for side in (0, 1)]
    smaller = min(clusters, key=lambda cluster: (len(cluster), names[0] in cluster))
    return set(smaller), [name for name in classes if name not in known]


def _items(root: Path) -> list[Sample]:
    """All images of the domains, ordered by id; `Sample.content` is the class."""
    if not root.is_dir():
        raise StylesimError(f"data.root={root}: there is no such folder. It is the folder of DomainNet's domains.")
    items = []
    for file in image_files(root):
        domain, *of, name = file.relative_to(root).parts
        if len(of) == 1 and domain.lower() != LEFT_OUT:
            tags, source = [f"domain:{domain}"], str(root / domain)
            items.append(Sample(f"{domain}/{of[0]}/{name}", file, tags, of[0], source))
    if len({item.source for item in items}) < 2:
        folders = sorted(child.name for child in root.iterdir() if child.is_dir())
        raise StylesimError(
            f"{root} is no DomainNet: below it lie folders of domains (clipart, infograph, painting, real, sketch), and"
            f" in each a folder for each class. Found: {', '.join(folders) or 'no folder'}."
        )
    return sorted(items, key=lambda item: item.id)


def _read_list(file: Path, classes: Sequence[str]) -> set[str]:
    try:
        asked = {line.strip() for line in file.read_text().splitlines()} - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise StylesimError(f"data.query_classes={file} cannot be read as a list of classes ({error}).") from error
    if unknown := sorted(asked.difference(classes)):
        near = difflib.get_close_matches(unknown[0], classes, n=3, cutoff=0)
        raise StylesimError(
            f"{file} lists {len(unknown)} classes that are not there, the first being {unknown[0]!r}; near are"
            f" {', '.join(near)}."
        )
    return asked


def _hash(seed: int, id: str) -> bytes:
    return hashlib.sha1(f"{seed} {id}".encode()).digest()
