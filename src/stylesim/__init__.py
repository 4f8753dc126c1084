"""Learn and measure artistic style in images.

Public names load on first use, so that `import stylesim` is quick and imports no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylesim.core.errors import ConfigError as ConfigError
    from stylesim.core.errors import CorruptSampleError as CorruptSampleError
    from stylesim.core.errors import DataError as DataError
    from stylesim.core.errors import StylesimError as StylesimError
    from stylesim.core.errors import WeightsError as WeightsError
    from stylesim.encoders.catalogue import list_models as list_models
    from stylesim.encoders.load import load_encoder as load_encoder
    from stylesim.encoders.style_encoder import StyleEncoder as StyleEncoder
    from stylesim.encoders.weights.checkpoint import load_checkpoint as load_checkpoint
    from stylesim.evaluation.add_images import add_images as add_images
    from stylesim.evaluation.add_images import open_database as open_database
    from stylesim.evaluation.metrics import retrieval_metrics as retrieval_metrics
    from stylesim.evaluation.retrieval_spec import RetrievalSpec as RetrievalSpec
    from stylesim.learning.losses import csd_loss as csd_loss
    from stylesim.retrieval.database.style_database import StyleDatabase as StyleDatabase
    from stylesim.retrieval.descriptor_set import DescriptorSet as DescriptorSet
    from stylesim.retrieval.exact_search import search as search
    from stylesim.scoring.attribution.attributor import attribute as attribute
    from stylesim.scoring.map.style_map import style_map as style_map
    from stylesim.scoring.ranking.rank_candidates import rank as rank
    from stylesim.scoring.style_loss import StyleLoss as StyleLoss
    from stylesim.scoring.style_loss import style_loss as style_loss
    from stylesim.scoring.style_similarity import StyleSimilarity as StyleSimilarity

    __version__: str

_HOMES = {
    "ConfigError": "core.errors",
    "CorruptSampleError": "core.errors",
    "DataError": "core.errors",
    "DescriptorSet": "retrieval.descriptor_set",
    "RetrievalSpec": "evaluation.retrieval_spec",
    "StyleDatabase": "retrieval.database.style_database",
    "StyleEncoder": "encoders.style_encoder",
    "StyleLoss": "scoring.style_loss",
    "StyleSimilarity": "scoring.style_similarity",
    "StylesimError": "core.errors",
    "WeightsError": "core.errors",
    "add_images": "evaluation.add_images",
    "attribute": "scoring.attribution.attributor",
    "csd_loss": "learning.losses",
    "list_models": "encoders.catalogue",
    "load_checkpoint": "encoders.weights.checkpoint",
    "load_encoder": "encoders.load",
    "open_database": "evaluation.add_images",
    "rank": "scoring.ranking.rank_candidates",
    "retrieval_metrics": "evaluation.metrics",
    "search": "retrieval.exact_search",
    "style_loss": "scoring.style_loss",
    "style_map": "scoring.map.style_map",
}
"""The module of each public name."""

__all__ = ["__version__", *_HOMES]  # type: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("stylesim")
    if name not in _HOMES:
        raise AttributeError(f"module 'stylesim' has no attribute {name!r}")
    return getattr(import_module(f"stylesim.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """The package, in which a public name stays what it is if a command's module has the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system sets `stylesim.search` to the module of the command when that is imported.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
