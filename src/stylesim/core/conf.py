"""The folder of the Hydra configurations, and the resolvers that they use."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

PACKAGE = Path(__file__).parents[1]
"""The folder of the `stylesim` package."""


def conf_dir() -> Path:
    """Return the folder of the Hydra groups: inside the package in a wheel, at the top of a checkout otherwise."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "conf"


def embedded(path: str) -> str:
    """Return the absolute path of a file of the checkout such as `data/stylecross/train`.

    YAML files write `${embedded:data/stylecross/train}`, so that a command can be run from any folder.
    """
    return str(PACKAGE.parents[1] / path)


OmegaConf.register_new_resolver("embedded", embedded, replace=True)
OmegaConf.register_new_resolver("conf", lambda group: str(conf_dir() / group), replace=True)
