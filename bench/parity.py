"""Nothing is timed that computes something else."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

# The largest difference from the float32 reference on a photo, whites at 1. uint8: half a grey level of rounding.
TOLERANCES = {"float32": 1e-5, "uint8": 0.5 / 255 + 1e-5, "bfloat16": 12 / 255, "float16": 4 / 255}
# Half precisions hold few bits, so that single pixels say little: the mean difference is held as well.
MEANS = {"float32": 1e-6, "uint8": 0.3 / 255, "bfloat16": 0.75 / 255, "float16": 0.1 / 255}


class Parity(NamedTuple):
    """The differences found and the reason to refuse the candidate, or None."""

    largest: float
    mean: float
    refusal: str | None


def check(result: Tensor, expected: Tensor, image: Tensor, dtype: str) -> Parity:
    """Compare with the reference.

    Args:
        result: (N, 3, H, W), floating or uint8, of the candidate.
        expected: float32, of the reference.
        image: float32, that both started from; the reference must have changed it by more than the tolerance.
        dtype: the candidate's, a key of ``TOLERANCES``.
    """
    if result.shape != expected.shape:
        return Parity(float("inf"), float("inf"), f"the result has shape {tuple(result.shape)}")
    if not result.is_floating_point():
        result, expected = result / 255, expected.clamp(0, 1)
    difference = (result.float() - expected).abs_()
    largest, mean = float(difference.max()), float(difference.mean())
    refusal = None
    # Also false where the result holds a NaN.
    if not (largest <= TOLERANCES[dtype] and mean <= MEANS[dtype]):
        refusal = (
            f"differs from the reference by up to {largest:.3g}, {mean:.3g} in the mean, "
            f"where {TOLERANCES[dtype]:.3g} and {MEANS[dtype]:.3g} are allowed"
        )
    elif not float((expected - image).abs_().max()) > 2 * TOLERANCES[dtype]:
        refusal = "the reference hardly changes this image, so that parity would show nothing"
    return Parity(largest, mean, refusal)
