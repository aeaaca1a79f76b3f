"""The model that a run begins with."""

from __future__ import annotations

from torch import nn

from abpn_fast import checkpoint
from abpn_fast.config import ABPNConfig
from abpn_fast.model import ABPN
from abpn_fast.reference import ABPN as ReferenceABPN
from abpn_fast.reference.attention import LocalAttentiveModule
from abpn_fast.reference.refining import RefiningModule
from abpn_fast.training.growing import can_grow, grow
from abpn_fast.training.options import Options


def first_model(options: Options) -> ABPN:
    """Saved weights where ``options.start`` names some, else fresh ones that change nothing.

    Where the preset is wider than the saved model, that has grown.

    Raises:
        FileNotFoundError, ValueError: the saved model is missing, damaged or cannot grow to the preset asked for.
    """
    preset = options.preset
    wanted = ABPNConfig.preset(preset) if isinstance(preset, str) else preset
    if options.start is None:
        model = ABPN(wanted or "small")
        start_at_identity(model)
        return model
    config, state = checkpoint.read(options.start)
    model = ABPN(config)
    checkpoint.load_strictly(model, state, options.start)
    if wanted is None or wanted == config:
        return model
    if not can_grow(config, wanted):
        raise ValueError(
            f"start names {options.start}, whose config is neither that of the preset that is asked for nor the same "
            "but narrower; leave out the preset"
        )
    wide = ABPN(wanted)
    grow(model, wide)
    return wide


def start_at_identity(model: ReferenceABPN) -> ReferenceABPN:
    """Zero the last layer of the retouching branch and of the refining modules: the untrained model changes nothing."""
    last = model.retouching_branch.blocks[-1]
    silent = [module.conv2 for module in model.refining if isinstance(module, RefiningModule)]
    if isinstance(last, LocalAttentiveModule):
        silent += [conv for conv in (last.feature, last.skip) if conv is not None]
    for conv in silent:
        nn.init.zeros_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return model
