"""Counting damaged samples, and stopping a run that has too many."""

from __future__ import annotations

import pytest

from stylesim.core.errors import DataError
from stylesim.data.damage_log import EXAMPLES, DamageLog


def test_more_damage_than_allowed_stops_a_run_and_names_examples():
    log = DamageLog()
    log.add(980, [(f"train/0/{i}", "no image") for i in range(30)])
    with pytest.raises(DataError, match=r"3.0% of the images are damaged.*\n.*30 of 1,010"):
        log.raise_if_over(0.01)
    assert log.summary().count("no image") == EXAMPLES
    assert "and 10 more" in log.summary()


def test_an_image_that_is_drawn_again_can_count_once():
    once, always = DamageLog(once=True), DamageLog()
    for _ in range(50):
        for log in (once, always):
            log.add(63, [("rare", "broken")])
    assert (once.skipped, once.seen) == (1, 50 * 63 + 1)
    once.raise_if_over(0.01)
    with pytest.raises(DataError, match=r"1\.6% of the images"):
        always.raise_if_over(0.01)
    once.add(0, [(f"{number}", "broken") for number in range(99)])
    with pytest.raises(DataError, match="100 of 3,250 images"):
        once.raise_if_over(0.01)


def test_little_damage_and_early_damage_do_not_stop_a_run():
    log = DamageLog()
    log.add(3, [("train/0/1", "no image")])
    log.raise_if_over(0.01)
    log.add(2000)
    log.raise_if_over(0.01)
    assert DamageLog().summary() == "None of 0 images was damaged."
