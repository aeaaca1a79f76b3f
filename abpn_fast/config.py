"""The options of the network: widths, ablations and open points of the paper, as one immutable value."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Literal, get_args

Attention = Literal["lam", "gated", "pcb"]
Blend = Literal["adaptive", "addition", "soft_light", "conv", "rgb"]
Output = Literal["residual", "direct"]
PyramidFilter = Literal["binomial", "box"]

_WIDTHS = {
    "base": (64, 128, 256, 512, 512, 512),
    "medium": (32, 64, 128, 128, 128, 128),
    "small": (16, 32, 64, 128, 128, 128),
}
_CHOICES = {"attention": Attention, "blend": Blend, "output": Output, "pyramid_filter": PyramidFilter}


@dataclasses.dataclass(frozen=True)
class ABPNConfig:
    """Everything that decides the shape and the function of an ABPN, besides its weights.

    Args:
        encoder_widths: channels of the six blocks of the mutual encoder, finest first.
        mask_branch: predict the target mask (MPB) and feed it to every attentive module. Table 2 turns it off.
        attention: block of the retouching branch: ``"lam"`` (Sec. 4.2), ``"pcb"`` (VCNet's probabilistic context block,
            for Table 2) or ``"gated"`` (a gated convolution alone, DeepFill v2, which Table 2 does not have).
        blend: how a blend layer acts on an image: ``"adaptive"`` (Eq. 3, j and k learned), ``"addition"``,
            ``"soft_light"`` (Pegtop, fixed), ``"conv"`` (two small networks) or ``"rgb"`` (the layer *is* the result).
        refining: refine the upsampled blend layer (Eq. 5); off, it is only upsampled.
        refining_levels: None for one refining module shared by all levels, or n for one module for each of the
            finest n levels; such a model takes at most n levels.
        output: ``"residual"`` adds ``tanh`` of the retouching branch to the thumbnail; ``"direct"`` maps it to [0, 1].
        pyramid_filter: the low-pass of the image pyramid, ``"binomial"`` ([1 3 3 1]/8) or ``"box"`` (2x2 mean).
        damping: keeps Eq. 4 finite where its divisor vanishes; 0 is the equation to the letter.

    Raises:
        ValueError: an option is outside its range; the message names it.
    """

    encoder_widths: tuple[int, ...] = _WIDTHS["base"]
    mask_branch: bool = True
    attention: Attention = "lam"
    blend: Blend = "adaptive"
    refining: bool = True
    refining_levels: int | None = None
    output: Output = "residual"
    pyramid_filter: PyramidFilter = "binomial"
    damping: float = 1e-4

    def __post_init__(self) -> None:
        if isinstance(self.encoder_widths, list):
            object.__setattr__(self, "encoder_widths", tuple(self.encoder_widths))
        if (
            not isinstance(self.encoder_widths, tuple)
            or len(self.encoder_widths) != 6
            or not all(_is_count(width) for width in self.encoder_widths)
        ):
            raise ValueError(f"encoder_widths must be six positive integers, got {self.encoder_widths!r}")
        for name in ("mask_branch", "refining"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}")
        if self.refining_levels is not None and not _is_count(self.refining_levels):
            raise ValueError(f"refining_levels must be None or a positive integer, got {self.refining_levels!r}")
        if (
            isinstance(self.damping, bool)
            or not isinstance(self.damping, (int, float))
            or not 0 <= self.damping < math.inf
        ):
            raise ValueError(f"damping must be a finite number >= 0, got {self.damping!r}")
        if self.attention == "pcb" and not self.mask_branch:
            raise ValueError("attention='pcb' normalises by the mask and needs mask_branch=True")

    @classmethod
    def preset(cls, name: str, **options: Any) -> ABPNConfig:
        """Widths for a name, with options on top.

        ``"base"`` has 47 M parameters and takes 23 GMAC at 256 px, ``"medium"`` 4.1 M and 4.3,
        ``"small"`` 2.9 M and 1.5.

        Raises:
            ValueError: no such preset.
            TypeError: no such option.
        """
        if name not in _WIDTHS:
            raise ValueError(f"preset must be one of {', '.join(_WIDTHS)}, got {name!r}")
        return cls(**{"encoder_widths": _WIDTHS[name], **options})

    def to_json(self) -> str:
        """The options as a JSON object, one key each."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ABPNConfig:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: not JSON, not an object, or an option is unknown or outside its range.
        """
        options = json.loads(text)
        if not isinstance(options, dict):
            raise ValueError(f"an ABPN config must be a JSON object, got {type(options).__name__}")
        unknown = sorted(set(options) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"an ABPN config has no option {', '.join(unknown)}")
        return cls(**options)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
