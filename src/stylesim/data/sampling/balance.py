"""Which images of a window make a balanced micro-batch: two ways to choose, by their tags.

A way takes the tags of each image of the window as columns of the vocabulary, how many images are wanted, and a
generator; it returns the places of different images in the window, fewer only if the window has no more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from stylesim.core.errors import StylesimError

Balance = Callable[[Sequence[Sequence[int]], int, np.random.Generator], list[int]]


def by_inverse_frequency(
    tags: Sequence[Sequence[int]], wanted: int, rng: np.random.Generator, *, counts: Sequence[int]
) -> list[int]:
    """One image after the other, each with a chance that is inverse to how many images have its rarest tag.

    `counts`: images with each tag, in the whole data set. An image without a tag has the chance of one with the
    most frequent tag.
    """
    frequency = [min((counts[tag] for tag in image), default=max(counts, default=1)) for image in tags]
    # The first arrivals among exponential waiting times: a weighted draw without replacement (Efraimidis and
    # Spirakis 2006).
    return np.argsort(rng.exponential(size=len(tags)) * frequency, kind="stable")[:wanted].tolist()


def by_tag(tags: Sequence[Sequence[int]], wanted: int, rng: np.random.Generator, *, images: int) -> list[int]:
    """`images` of each of so many tags as it takes, drawn among the tags that two images of the window have.

    An image that was taken for another tag counts too. A tag that the window has fewer images of gives all of them,
    and one tag more is drawn; what is still wanted when there is no more tag is drawn from the other images.
    """
    places: dict[int, list[int]] = defaultdict(list)
    order = rng.permutation(len(tags)).tolist()
    for place in order:
        for tag in tags[place]:
            places[tag].append(place)
    taken: dict[int, None] = {}
    for tag in rng.permutation(sorted(tag for tag, having in places.items() if len(having) > 1)).tolist():
        if len(taken) >= wanted:
            break
        missing = images - sum(place in taken for place in places[tag])
        others = [place for place in places[tag] if place not in taken]
        taken.update(dict.fromkeys(others[: max(missing, 0)]))
    return [*taken, *(place for place in order if place not in taken)][:wanted]


def read_balance(setting: str, batch: int) -> Callable[[Sequence[int]], Balance]:
    """The way that `data.balance` names, for tags with so many images each.

    Raises `StylesimError` for a setting that is neither `inverse_frequency` nor `PxK`, or if P x K is not `batch`.
    """
    if setting == "inverse_frequency":
        return lambda counts: partial(by_inverse_frequency, counts=counts)
    numbers = re.fullmatch(r"(\d+)x(\d+)", setting)
    if numbers is None or int(numbers[2]) < 2:
        raise StylesimError(
            f"data.balance={setting} is no way to balance: take inverse_frequency, or PxK, such as 16x4 for four images"
            " of each of 16 tags (two at least, or there is nothing that belongs together), or null."
        )
    if int(numbers[1]) * int(numbers[2]) != batch:
        raise StylesimError(
            f"data.balance={setting} makes micro-batches of {int(numbers[1]) * int(numbers[2])} images, and"
            f" data.batch_size is {batch}: let P x K be the batch size of one process."
        )
    return lambda counts: partial(by_tag, images=int(numbers[2]))
