"""Labels of images: the values that a selector ("content", "source" or a glob over tags) finds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from stylesim.core.errors import DataError
from stylesim.retrieval.groups import Groups

COLUMNS = ("content", "source")


def matching_tags(tags: Iterable[str], glob: str) -> list[str]:
    """Return the tags that a glob selects, in their order. The comparison is case-sensitive."""
    return [tag for tag in tags if fnmatchcase(tag, glob)]


def label_values(items: pd.DataFrame, selector: str) -> list[list[str]]:
    """Return the values of each item for a selector.

    Args:
        items: The `items` of a DescriptorSet.
        selector: "content", "source", or a glob over tags.
    """
    if selector in COLUMNS:
        return [[] if value is None else [value] for value in items[selector]]
    return [matching_tags(tags, selector) for tags in items["tags"]]


def label_groups(queries: pd.DataFrame, gallery: pd.DataFrame, selector: str) -> tuple[Groups, Groups]:
    """Find the values of queries and gallery, and number them with the same codes.

    Args:
        queries: The `items` of the queries.
        gallery: The `items` of the gallery.
        selector: "content", "source", or a glob over tags.

    Returns:
        The groups of the queries and of the gallery: codes if no item has more than one value, otherwise multi-hot
        rows.

    Raises:
        DataError: If no query or no gallery item has a value.
    """
    sides = [label_values(queries, selector), label_values(gallery, selector)]
    for name, values, items in zip(("query", "gallery"), sides, (queries, gallery), strict=True):
        if not any(values):
            known = sorted({tag for tags in items["tags"] for tag in tags})
            raise DataError(
                f"No {name} image has a value for {selector!r}. Its tags are {', '.join(known[:8]) or 'none'}"
                f"{', ...' if len(known) > 8 else ''}. Use a glob that matches some of them, 'content' or 'source'."
            )
    distinct_values = sorted({value for side in sides for values in side for value in values})
    codes = {value: code for code, value in enumerate(distinct_values)}
    if all(len(values) <= 1 for side in sides for values in side):
        single = [torch.tensor([codes[values[0]] if values else -1 for values in side]) for side in sides]
        return single[0], single[1]
    multi_hot = [torch.zeros(len(side), len(codes), dtype=torch.bool) for side in sides]
    for table, side in zip(multi_hot, sides, strict=True):
        for row, values in enumerate(side):
            table[row, [codes[value] for value in values]] = True
    return multi_hot[0], multi_hot[1]


def encode_labels(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str]
) -> tuple[Float[np.ndarray, "n d"], list[str], Int[np.ndarray, " n"]]:
    """Number the labels of a set of descriptors.

    Args:
        descriptors: One descriptor per image.
        labels: One label per image.

    Returns:
        The descriptors in float32, the distinct labels in alphabetical order, and the code of each image's label.

    Raises:
        DataError: If there is not one label per descriptor, or fewer than two distinct labels.
    """
    if len(descriptors) != len(labels):
        raise DataError(
            f"Every descriptor needs one label, got {len(descriptors)} descriptors and {len(labels)} labels."
        )
    names, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise DataError(f"Measuring how well labels are separated needs at least two labels, got {len(names)}.")
    return np.asarray(descriptors, dtype=np.float32), names.tolist(), code
