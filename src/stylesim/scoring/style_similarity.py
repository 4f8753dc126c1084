"""StyleSimilarity: General Style Similarity inside a training loop, as a torchmetrics metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from stylesim.core.errors import StylesimError
from stylesim.encoders.load import load_encoder
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.scoring.gss import image_scores, mean_scores, neighbourhood_similarities

SIDES = ("generated", "real")


class StyleSimilarity(Metric):
    """How much generated images resemble real works in style, over all batches and all processes.

    `update(images, real=True)` takes works and `real=False` generations: `[b 3 h w]`, uint8 or floats in [0, 1], of any
    size. They go through PIL and the encoder's own preprocessing as files do (floats are rounded to 8 bit), so that the
    metrics are those of `python -m stylesim.score` on the same images. `compute()` gives `gss`, `gss_unit_prototype`
    and `gss_renormalised` as `scores.mean_scores` defines them.

    Call `update` and `compute`, not the metric itself: a batch of one side has no similarity to the other.

    The encoder is no part of the module that holds the metric: neither its optimiser nor its checkpoints see it. It
    describes on the metric's device, in evaluation mode, without gradients.

    Args:
        encoder: An encoder, or what `stylesim.load_encoder` takes: a name, or the path of a checkpoint.
        readout: `cosine` keeps two sums of descriptors, however many images come. `csls` adds the metric `csls`, with
            neighbourhood_similarities of 10, and keeps every descriptor for it.
        reset_real_features: False keeps the works over `reset`, so that they need not be described in every epoch.
        options: Of `torchmetrics.Metric`.

    Raises:
        StylesimError: For an encoder that cannot be loaded; in `compute`, where a side has had no image.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    generated_sum: Float[Tensor, " d"]
    generated_count: Tensor
    generated_descriptors: list[Float[Tensor, "b d"]]
    real_sum: Float[Tensor, " d"]
    real_count: Tensor
    real_descriptors: list[Float[Tensor, "b d"]]

    def __init__(
        self,
        encoder: str | Path | StyleEncoder,
        readout: Literal["cosine", "csls"] = "cosine",
        *,
        reset_real_features: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if readout not in ("cosine", "csls"):
            raise StylesimError(f"readout={readout!r} is none of cosine, csls.")
        if not isinstance(encoder, StyleEncoder):
            encoder = load_encoder(encoder, device="cpu")
        self._encoder = (encoder,)  # in a tuple, where torch does not look for the parameters of a module
        self.readout, self.reset_real_features = readout, reset_real_features
        for side in SIDES:
            # float32: the GPUs of laptops know no float64, and a mean of unit vectors needs none.
            self.add_state(f"{side}_sum", torch.zeros(encoder.dim), dist_reduce_fx="sum")
            self.add_state(f"{side}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{side}_descriptors", [], dist_reduce_fx="cat")
        self._begin_lists()

    def update(self, images: UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"], real: bool) -> None:
        """Describe a batch of works (`real`) or of generations, and add it to its side."""
        (encoder,) = self._encoder
        with torch.autocast(self.device.type, enabled=False):  # of the training loop; `score` has none
            descriptors = normalize(encoder.to(self.device).encode(images.cpu())).to(self.device)
        if real:
            self.real_sum += descriptors.sum(0)
            self.real_count += len(descriptors)
        else:
            self.generated_sum += descriptors.sum(0)
            self.generated_count += len(descriptors)
        if self.readout == "csls":
            (self.real_descriptors if real else self.generated_descriptors).append(descriptors)

    def compute(self) -> dict[str, Tensor]:
        """The metrics over all that was updated, as scalars."""
        for name, count in (("generated", self.generated_count), ("real", self.real_count)):
            if not count:
                wanted = f"update(images, real={name == 'real'})"
                raise StylesimError(f"StyleSimilarity has seen no {name} image: call {wanted} before compute().")
        metrics = mean_scores(self.generated_sum / self.generated_count, self.real_sum / self.real_count)
        if self.readout == "csls":
            generated, real = (
                dim_zero_cat(kept).cpu().numpy() for kept in (self.generated_descriptors, self.real_descriptors)
            )
            values = image_scores(generated, real, *neighbourhood_similarities(generated, real))["csls"]
            metrics["csls"] = self.real_sum.new_tensor(values.mean())
        return metrics

    def reset(self) -> None:
        """Forget all images, or with `reset_real_features=False` the generated ones."""
        real = self.real_sum, self.real_count, [*self.real_descriptors]
        super().reset()
        self._begin_lists()
        if not self.reset_real_features:
            self.real_sum, self.real_count, self.real_descriptors = real

    def _begin_lists(self) -> None:
        """A process without an image of a side still has rows to gather, none of them, of the right width."""
        if self.readout == "csls":
            for kept in (self.generated_descriptors, self.real_descriptors):
                kept.append(self.real_sum.new_empty(0, len(self.real_sum)))
