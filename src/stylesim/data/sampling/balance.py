"""Choose the images of a balanced micro-batch from a window, by their tags.

A strategy takes the tags of each image of the window as columns of the vocabulary, the number of images to choose, and
a generator. It returns indices of different images in the window, fewer than requested only if the window has no more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from stylesim.core.errors import ConfigError

Strategy = Callable[[Sequence[Sequence[int]], int, np.random.Generator], list[int]]


def choose_by_inverse_frequency(
    tags: Sequence[Sequence[int]], wanted: int, rng: np.random.Generator, *, counts: Sequence[int]
) -> list[int]:
    """Choose images one after the other, with a probability inverse to the frequency of their rarest tag.

    Args:
        tags: Columns of the tags of each image of the window. An image without a tag counts as one with the most
            frequent tag.
        wanted: Number of images to choose.
        rng: Random number generator.
        counts: Number of images with each tag in the whole data set.

    Returns:
        Indices of different images.
    """
    frequency = [min((counts[tag] for tag in image), default=max(counts, default=1)) for image in tags]
    # The first arrivals among exponential waiting times: a weighted draw without replacement (Efraimidis and
    # Spirakis 2006).
    return np.argsort(rng.exponential(size=len(tags)) * frequency, kind="stable")[:wanted].tolist()


def choose_by_tag(tags: Sequence[Sequence[int]], wanted: int, rng: np.random.Generator, *, per_tag: int) -> list[int]:
    """Choose `per_tag` images of each of as many tags as are needed.

    Tags are drawn among those of at least two images of the window. An image that was chosen for another tag counts
    too. A tag with fewer images than `per_tag` gives all of them, and one more tag is drawn; when no tag is left, the
    rest is drawn from the other images.

    Args:
        tags: Columns of the tags of each image of the window.
        wanted: Number of images to choose.
        rng: Random number generator.
        per_tag: Number of images of one tag.

    Returns:
        Indices of different images.
    """
    images_of_tag: dict[int, list[int]] = defaultdict(list)
    order = rng.permutation(len(tags)).tolist()
    for index in order:
        for tag in tags[index]:
            images_of_tag[tag].append(index)
    chosen: dict[int, None] = {}
    for tag in rng.permutation(sorted(tag for tag, images in images_of_tag.items() if len(images) > 1)).tolist():
        if len(chosen) >= wanted:
            break
        missing = per_tag - sum(index in chosen for index in images_of_tag[tag])
        others = [index for index in images_of_tag[tag] if index not in chosen]
        chosen.update(dict.fromkeys(others[: max(missing, 0)]))
    return [*chosen, *(index for index in order if index not in chosen)][:wanted]


def parse_balance(setting: str, batch_size: int) -> Callable[[Sequence[int]], Strategy]:
    """Return a function that makes the strategy of `data.balance` from the number of images with each tag.

    Args:
        setting: `inverse_frequency`, or `PxK` for K images of each of P tags.
        batch_size: Number of images in a micro-batch on one rank.

    Raises:
        ConfigError: For any other setting, and if P x K is not `batch_size`.
    """
    if setting == "inverse_frequency":
        return lambda counts: partial(choose_by_inverse_frequency, counts=counts)
    numbers = re.fullmatch(r"(\d+)x(\d+)", setting)
    if numbers is None or int(numbers[2]) < 2:
        raise ConfigError(
            "data.balance must be null, inverse_frequency, or PxK with K of at least 2 (16x4 takes four images of each"
            f" of 16 tags), got {setting}."
        )
    if int(numbers[1]) * int(numbers[2]) != batch_size:
        raise ConfigError(
            f"data.balance={setting} makes micro-batches of {int(numbers[1]) * int(numbers[2])} images, but"
            f" data.batch_size is {batch_size}: P x K must be the batch size of one process."
        )
    return lambda counts: partial(choose_by_tag, per_tag=int(numbers[2]))
