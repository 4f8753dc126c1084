from __future__ import annotations

import pytest

from stylesim.core.errors import ConfigError
from stylesim.scoring.attribution.attribution_verdict import Candidate, VerdictRule


def ranking(p_value: float = 0.05, works: int = 5) -> list[Candidate]:
    scores = {"a": 0.5, "b": 0.45, "c": 0.4, "d": 0.35, "e": 0.1}
    return [Candidate(label, score, works, p_value) for label, score in scores.items()]


def test_a_sure_label_is_attributed() -> None:
    verdict = VerdictRule().decide(ranking(), 0.95, 0.01)
    assert (verdict.kind, verdict.labels, verdict.words) == ("attributed", ["a"], "attributed to a")


def test_an_unsure_label_is_ambiguous_between_those_within_the_gap() -> None:
    verdict = VerdictRule().decide(ranking(), 0.7, 0.12)
    assert verdict.labels == ["a", "b", "c"]
    assert verdict.words == "ambiguous between a, b and c"
    assert VerdictRule().decide(ranking(), 0.7, 0.2).words == "ambiguous between a, b and c (and 1 more)"
    assert VerdictRule().decide(ranking(), 0.7, 0.0).words == "ambiguous between a and b"
    assert VerdictRule().decide(ranking(), 0.7, float("inf")).labels == ["a", "b"]


def test_a_score_that_foreign_labels_reach_is_none_of_these() -> None:
    verdict = VerdictRule().decide(ranking(p_value=0.2), 0.99, 0.0)
    assert (verdict.kind, verdict.labels, verdict.words) == ("none", [], "none of these")
    assert "p = 0.200" in verdict.reason
    assert VerdictRule(closed=True).decide(ranking(p_value=0.2), 0.99, 0.0).kind == "attributed"


def test_a_p_value_of_nan_gives_no_name() -> None:
    assert VerdictRule().decide(ranking(p_value=float("nan")), 0.99, 0.0).kind == "none"


def test_an_unknown_probability_or_a_single_work_gives_no_name() -> None:
    assert VerdictRule().decide(ranking(), None, float("inf")).kind == "ambiguous"
    assert VerdictRule().decide(ranking(works=1), 0.99, 0.0).kind == "ambiguous"


@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"confidence": 0.0}])
def test_values_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        VerdictRule(**options)  # type: ignore[arg-type]
