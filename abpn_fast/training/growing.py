"""A wider model that computes what a narrower one does, to go on learning from there.

Net2Net (Chen et al., ICLR 2016), with new channels of their own instead of copies: they look at everything, and
nothing looks at them yet.
"""

from __future__ import annotations

import dataclasses

import torch

from abpn_fast.config import ABPNConfig
from abpn_fast.reference import ABPN


def can_grow(narrow: ABPNConfig, wide: ABPNConfig) -> bool:
    """Whether the two differ in widths alone, none of which shrinks; ``"pcb"``, which mixes channels, does not grow."""
    wider = all(a <= b for a, b in zip(narrow.encoder_widths, wide.encoder_widths, strict=True))
    same = dataclasses.replace(narrow, encoder_widths=wide.encoder_widths) == wide
    return wider and same and wide.attention != "pcb"


@torch.no_grad()
def grow(narrow: ABPN, wide: ABPN) -> None:
    """Give ``wide``, freshly made, the function of ``narrow``.

    Args:
        narrow: of a config that :func:`can_grow` to that of ``wide``.
        wide: changed in place; what its new channels compute stays as it is.
    """
    given, joined, own = _joined(narrow.config), _joined(wide.config), wide.state_dict()
    for name, old in narrow.state_dict().items():
        new = own[name]
        if new.shape == old.shape:
            new.copy_(old)
        elif old.dim() == 1:
            new[: len(old)] = old
        else:
            known, layer = new[: len(old)].zero_(), name.removesuffix(".weight")
            parts = zip(known.split_with_sizes(joined[layer], 1), old.split_with_sizes(given[layer], 1), strict=True)
            for into, part in parts:
                into[:, : part.shape[1]] = part


def _joined(config: ABPNConfig) -> dict[str, list[int]]:
    """The channels of every tensor that a convolution reads side by side, by the convolution's name."""
    widths = (3, *config.encoder_widths)
    joined = {f"encoder.blocks.{i}.0": [width] for i, width in enumerate(widths[:6])}
    for i in range(4):
        joined[f"mask_branch.blocks.{i}.0"] = [widths[6 - i], widths[5 - i]]
    joined["mask_branch.head"] = [widths[2]]
    for i in range(6):
        block = f"retouching_branch.blocks.{i}"
        attended = [widths[6 - i], widths[5 - i]] + [1] * config.mask_branch
        joined |= {f"{block}.feature": attended, f"{block}.gate": attended, f"{block}.skip": [widths[5 - i]]}
    return joined
