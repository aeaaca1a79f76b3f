"""abpn_fast in bfloat16: weights, image and result."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from abpn_fast import reference
from bench.peers import ours

why_not = ours.why_not


def prepare(model: reference.ABPN, image: Tensor) -> Callable[[], Tensor]:
    return ours.prepare(copy.deepcopy(model).to(torch.bfloat16), image)
