from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops

from abpn_fast.reference import PolynomialBlend, adaptive_blend, reverse_adaptive_blend
from tests import formulas
from tests.reference.networks import config, photo

SOFT_LIGHT = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0.0, 1.0, 0.0])


def test_pillow_soft_light() -> None:
    """Pegtop's form, neutral at one half, at every pair of grey levels: within one of Pillow's before it truncates.

    Pillow computes in integers, ``(255 - a) a b / 65536 + a (255 - (255 - a) (255 - b) / 255) / 255``, and drops the
    rest of each of the three divisions, which alone puts it up to two levels below.
    """
    below = torch.arange(256, dtype=torch.uint8).repeat(256, 1)
    above = below.T.contiguous()
    j, k = torch.tensor([0.0, 2.0, -2.0]), torch.tensor([0.0, 0.0, 1.0])
    blend = (above.double() / 255).expand(1, 3, -1, -1)
    result = adaptive_blend(below.expand(1, 3, -1, -1), blend, j, k)[0, 0].numpy().astype(float)
    pillow = np.asarray(ImageChops.soft_light(*(Image.fromarray(layer.numpy()) for layer in (below, above))))
    a, b = below.numpy().astype(float), above.numpy().astype(float)
    untruncated = (255 - a) * a * b / 65536 + a * (255 - (255 - a) * (255 - b) / 255) / 255
    dropped = untruncated - pillow
    assert dropped.min() > -1 and dropped.max() < 2
    assert np.abs(result - untruncated).max() <= 1
    assert np.abs(result - pillow).max() <= 2 and (np.abs(result - pillow) <= 1).mean() > 0.88


def test_initial_coefficients_are_soft_light_about_zero() -> None:
    image, blend = photo(8, 9, dtype=torch.float64), torch.rand(1, 3, 8, 9, dtype=torch.float64)
    shifted = adaptive_blend(image, blend - 0.5, *SOFT_LIGHT)
    usual = adaptive_blend(image, blend, SOFT_LIGHT[0], torch.tensor([0.0, 0.0, 1.0]))
    assert (shifted - usual).abs().max() < 1e-15


@pytest.mark.parametrize("damping", [0.0, 1e-4])
def test_there_and_back(damping: float) -> None:
    """R-ABM then ABM gives R back where |d| is large."""
    image, retouched = photo(64, 65, dtype=torch.float64), photo(64, 65, dtype=torch.float64)
    blend = reverse_adaptive_blend(image, retouched, *SOFT_LIGHT, damping=damping)
    again = adaptive_blend(image, blend, *SOFT_LIGHT)
    d = 2 * image - 2 * image**2
    large = d.abs() > 0.1
    assert large.any() and not large.all()
    # What damping takes away of R - k(I).
    lost = damping / (d**2 + damping) * (retouched - image).abs()
    assert ((again - retouched).abs() - lost)[large].max() < 1e-12
    assert damping == 0 or (lost[large].max() < 0.01)


@pytest.mark.parametrize("damping", [0.0, 1e-4, 1e-12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_and_neutral_at_black_white_and_padding(dtype: torch.dtype, damping: float) -> None:
    image = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=dtype).expand(1, 3, 5, 4).clone()
    retouched = photo(5, 4, dtype=dtype)
    retouched[..., 3] = 0
    blend = reverse_adaptive_blend(image, retouched, *SOFT_LIGHT, damping=damping)
    assert torch.isfinite(blend).all()
    assert (blend[..., [0, 1, 3]] == 0).all() and (blend[..., 2] != 0).all()


@pytest.mark.parametrize("blend", ["adaptive", "soft_light", "addition", "rgb"])
def test_polynomial_blends(blend: str) -> None:
    module = PolynomialBlend(config(blend=blend)).double()
    image, layer = photo(9, 8, dtype=torch.float64), torch.randn(1, 3, 9, 8, dtype=torch.float64)
    wanted = {"addition": image + layer, "rgb": layer}.get(blend, image + 2 * layer * image * (1 - image))
    assert (module(image, layer) - wanted).abs().max() < 1e-14
    assert len(list(module.parameters())) == (2 if blend == "adaptive" else 0)
    assert set(module.state_dict()) == {"j", "k"}
    if blend in ("addition", "rgb"):
        assert (module(image, module.reverse(image, layer)) - layer).abs().max() < 1e-14


@pytest.mark.parametrize("damping", [0.0, 1e-4])
def test_the_damping_of_the_config_is_used(damping: float) -> None:
    module = PolynomialBlend(config(damping=damping)).double()
    image, retouched = photo(9, 8, dtype=torch.float64), photo(9, 8, dtype=torch.float64)
    exact = formulas.rabm(*(x.double().numpy() for x in (image, retouched, *SOFT_LIGHT)), damping=damping)
    assert np.abs(module.reverse(image, retouched).detach().numpy() - exact).max() < 1e-12 * np.abs(exact).max()
