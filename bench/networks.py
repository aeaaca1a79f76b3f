"""The reference networks that every candidate starts from."""

from __future__ import annotations

import torch

from abpn_fast import checkpoint, reference


def network(name: str) -> reference.ABPN:
    """``"small"`` with the bundled weights, ``"base"`` with random ones (seed 0); float32, eval mode."""
    if name in checkpoint.bundled():
        config, state = checkpoint.read(name)
        model = reference.ABPN(config)
        checkpoint.load_strictly(model, state, name)
    else:
        torch.manual_seed(0)
        model = reference.ABPN(name)
    return model.eval().requires_grad_(False)
