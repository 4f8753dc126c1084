"""The labels of images: which of their tags, contents or sources make two images alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError
from stylesim.retrieval.groups import Groups

COLUMNS = ("content", "source")


def matching_tags(tags: Iterable[str], glob: str) -> list[str]:
    """Those of an item's tags that a glob selects, in their order (case matters)."""
    return [tag for tag in tags if fnmatchcase(tag, glob)]


def label_values(items: pd.DataFrame, selector: str) -> list[list[str]]:
    """The values each item has for "content", "source" or a glob over its tags."""
    if selector in COLUMNS:
        return [[] if value is None else [value] for value in items[selector]]
    return [matching_tags(tags, selector) for tags in items["tags"]]


def label_groups(queries: pd.DataFrame, gallery: pd.DataFrame, selector: str) -> tuple[Groups, Groups]:
    """Values of both sides as groups: codes where no item has more than one, multi-hot rows otherwise."""
    sides = [label_values(queries, selector), label_values(gallery, selector)]
    for name, side, items in zip(("query", "gallery"), sides, (queries, gallery), strict=True):
        if not any(side):
            known = sorted({tag for tags in items["tags"] for tag in tags})
            raise StylesimError(
                f"No {name} image has a value for {selector!r}. Its tags are {', '.join(known[:8]) or 'none'}"
                f"{', ...' if len(known) > 8 else ''}; 'content' and 'source' may be asked for too."
            )
    codes = {value: code for code, value in enumerate(sorted({v for side in sides for vs in side for v in vs}))}
    if all(len(values) <= 1 for side in sides for values in side):
        single = [torch.tensor([codes[values[0]] if values else -1 for values in side]) for side in sides]
        return single[0], single[1]
    hot = [torch.zeros(len(side), len(codes), dtype=torch.bool) for side in sides]
    for table, side in zip(hot, sides, strict=True):
        for row, values in enumerate(side):
            table[row, [codes[value] for value in values]] = True
    return hot[0], hot[1]


def encode_labels(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str]
) -> tuple[Float[np.ndarray, "n d"], list[str], Int[np.ndarray, " n"]]:
    """Descriptors, names of labels, and each image's label by number."""
    if len(descriptors) != len(labels):
        raise StylesimError(f"There are {len(descriptors)} descriptors but {len(labels)} labels: one each is needed.")
    names, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise StylesimError(f"Telling labels apart needs two or more; these images have {len(names)}.")
    return np.asarray(descriptors, dtype=np.float32), names.tolist(), code
