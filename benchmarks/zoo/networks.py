"""The networks of the table: names, sizes of input, and how each is built with random weights.

The names of timm and torchvision are theirs. Inputs are smaller than what the networks were made for, where they allow
it, so that the whole table takes minutes of one core.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
SIDE = 64  # of the input, where nothing else is said

_TIMM = """
beit_base_patch16_224 cait_xxs24_224 convmixer_768_32 convnext_atto cspdarknet53 cspresnet50 darknet53
deit_tiny_patch16_224 dla34 dpn68 ecaresnet26t edgenext_xx_small efficientformer_l1 efficientnet_es efficientnet_lite0
efficientvit_b0 ese_vovnet19b_dw fasternet_t0 fastvit_t8 fbnetc_100 gernet_s ghostnet_050 halonet26t hgnet_tiny
hrnet_w18_small inception_next_atto inception_resnet_v2 inception_v4 lcnet_050 legacy_seresnet18 legacy_xception
levit_128s mambaout_femto mixer_s32_224 mixnet_s mobilenetv1_100 mobilenetv4_conv_small mobileone_s0 mobilevit_xxs
mobilevitv2_050 nf_resnet50 nfnet_l0 pnasnet5large poolformer_s12 pvt_v2_b0 regnety_002 repghostnet_050 repvgg_a0
repvit_m0_9 res2net50_26w_4s resmlp_12_224 resnest14d resnet26d resnetv2_50 resnetv2_50x1_bit rexnet_100 selecsls42
semnasnet_075 seresnet50 skresnet18 starnet_s1 swin_tiny_patch4_window7_224 test_resnet tiny_vit_5m_224 tresnet_m
vit_tiny_patch16_224 vovnet39a xception41 xcit_nano_12_p16_224
"""

_TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0
swin_t swin_v2_t vgg11_bn vit_b_32 wide_resnet50_2
"""

SEGMENTATION = ["fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
DETECTION = ["ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "retinanet_resnet50_fpn"]

# What is not SIDE: the side of the input, and whether the constructor is told so (`img_size`).
SIDES: dict[str, tuple[int, str | None]] = {
    **dict.fromkeys(("alexnet", "squeezenet1_0", "vgg11_bn"), (96, None)),
    "inception_v3": (96, None),
    **dict.fromkeys(("inception_resnet_v2", "inception_v4", "legacy_xception", "pnasnet5large"), (96, None)),
    "maxvit_t": (224, None),
    "vit_b_32": (64, "image_size"),
    "ssdlite320_mobilenet_v3_large": (320, None),
    "ssd300_vgg16": (300, None),
    **dict.fromkeys(
        ("beit_base_patch16_224", "cait_xxs24_224", "deit_tiny_patch16_224", "mixer_s32_224"), (64, "img_size")
    ),
    **dict.fromkeys(("resmlp_12_224", "vit_tiny_patch16_224"), (64, "img_size")),
    "halonet26t": (256, None),
    "xcit_nano_12_p16_224": (64, "img_size"),
    "swin_tiny_patch4_window7_224": (112, "img_size"),
    **dict.fromkeys(("tiny_vit_5m_224", "levit_128s", "efficientformer_l1"), (224, None)),
}


def names() -> list[str]:
    """Every network of the table, as `library/name`."""
    vision = [*_TORCHVISION.split(), *SEGMENTATION, *DETECTION]
    return [*(f"timm/{name}" for name in _TIMM.split()), *(f"torchvision/{name}" for name in vision)]


def build(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network in eval mode with random weights and running statistics, and the shape of one sample."""
    torch.manual_seed(SEED)
    library, _, short = name.partition("/")
    side, told = SIDES.get(short, (SIDE, None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = (_timm if library == "timm" else _torchvision)(short, {told: side} if told else {})
    shape = (3, side, side)
    settle(net, shape)
    return net, shape


def _timm(name: str, given: dict[str, Any]) -> nn.Module:
    import_torchvision()
    import timm

    net: nn.Module = timm.create_model(name, pretrained=False, **given)
    return net


def _torchvision(name: str, given: dict[str, Any]) -> nn.Module:
    torchvision, _ = import_torchvision()
    if name in SEGMENTATION:
        more = {} if name.startswith("lraspp") else {"aux_loss": True}
        net: nn.Module = torchvision.models.get_model(name, weights=None, weights_backbone=None, **more)
        return net
    if name in DETECTION:
        return Heads(torchvision.models.get_model(name, weights=None, weights_backbone=None))
    if name in ("googlenet", "inception_v3"):
        given = {**given, "aux_logits": False, "init_weights": True}
    return torchvision.models.get_model(name, weights=None, **given)  # type: ignore[no-any-return]


class Heads(nn.Module):
    """A detector's backbone with its heads: class scores and boxes of every anchor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = net.backbone, net.head

    def forward(self, x: Tensor) -> Any:
        features = list(self.backbone(x).values())
        return self.head(features)


@cache
def import_torchvision() -> Any:
    """torchvision, whose compiled operators do not load beside this torch; none of the networks here calls one.

    It only asks that they exist, to which it then adds Python functions.
    """
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision, library  # which takes its definitions along when it goes


def settle(net: nn.Module, shape: tuple[int, ...]) -> None:
    """Random weights through which an input is still felt at the output.

    Running statistics become those of random samples, since otherwise values grow or fade from layer to layer until
    the output is constant. Parameters that are alike, such as scales of 1 and gates of 0, get noise: else whole
    branches would go untested.
    """
    norms = [m for m in net.modules() if getattr(m, "running_mean", None) is not None]
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.numel() and parameter.min() == parameter.max():
                parameter += 0.1 * torch.randn_like(parameter)
        net.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
        net(torch.randn(8, *shape))
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= 1 + 0.2 * torch.rand_like(norm.running_var)
    net.eval()
