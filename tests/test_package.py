from __future__ import annotations


def test_every_public_name_loads_and_no_module_stands_in_its_way() -> None:
    import stylesim.evaluation.embed
    import stylesim.evaluation.evaluate

    for name in stylesim._HOMES:
        assert callable(getattr(stylesim, name)), name
        assert name in dir(stylesim)
