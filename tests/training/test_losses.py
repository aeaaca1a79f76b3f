from __future__ import annotations

import numpy as np
import pytest
import torch

from abpn_fast.reference import ABPN, Retouched
from abpn_fast.training.losses import (
    changed_region,
    dice,
    multi_scale,
    retouched_pyramid,
    target_pyramid,
    total_variation,
)
from abpn_fast.training.objective import Objective
from tests import formulas
from tests.reference.networks import config, photo

LEVELS = 2


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    image = photo(37, 50, count=2, dtype=torch.float64)
    target = image.clone()
    target[..., 8:20, 10:30] = (target[..., 8:20, 10:30] + 0.1 * torch.rand(2, 3, 12, 20)).clamp(0, 1)
    return image, target


def output_of(image: torch.Tensor) -> tuple[ABPN, Retouched]:
    model = ABPN(config()).double().eval()
    output = model(image, levels=LEVELS, return_intermediates=True)
    assert isinstance(output, Retouched)
    return model, output


def test_changed_region() -> None:
    image = torch.full((1, 3, 2, 4), 0.5)
    target = image.clone()
    target[0, 0, 0, 0] += 0.03
    target[0, 2, 1, 1] -= 0.03
    target[0, 1, 0, 3] += 0.019
    region = changed_region(image, target)
    assert region.dtype == torch.float32
    assert region.tolist() == [[[[1, 0, 0, 0], [0, 1, 0, 0]]]]
    assert changed_region(image, target, 0.01).sum() == 3


@pytest.mark.parametrize("filter", ["binomial", "box"])
def test_target_pyramid(filter: str) -> None:
    _, target = pair()
    exact = formulas.laplacian(target.numpy(), 3, filter)[0]
    for found, wanted in zip(target_pyramid(target, 3, filter=filter), exact, strict=True):
        assert np.abs(found.numpy() - wanted).max() < 1e-14


def test_retouched_pyramid() -> None:
    image, _ = pair()
    model, output = output_of(image)
    found = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, model.blend)
    assert found[-1] is output.low_res and len(found) == LEVELS + 1
    assert torch.equal(found[0], output.image)
    i, b, j, k = (x.detach().numpy() for x in (output.pyramid[1], output.blend_layers[1], model.blend.j, model.blend.k))
    assert np.abs(found[1].detach().numpy() - formulas.abm(i, b, j, k)).max() < 1e-14


@pytest.mark.parametrize("power", [1, 2])
def test_multi_scale(power: int) -> None:
    levels = [torch.rand(2, 3, n, n + 1) for n in (8, 4, 2)]
    targets, weights = [torch.rand_like(x) for x in levels], [1 + torch.rand(2, 1, *x.shape[2:]) for x in levels]
    wanted = sum(
        np.mean(w.numpy() * np.abs(x.numpy() - t.numpy()) ** power)
        for x, t, w in zip(levels, targets, weights, strict=True)
    )
    assert multi_scale(levels, targets, weights, power).item() == pytest.approx(wanted, rel=1e-5)


def test_dice() -> None:
    mask, truth = torch.rand(2, 1, 30, 30), torch.zeros(2, 1, 30, 30)
    truth[:, :, :12] = 1
    m, t = mask.double().numpy(), truth.double().numpy()
    plain = 1 - 2 * (m * t).sum() / ((m**2).sum() + (t**2).sum())
    # The 1 that keeps an empty pair from 0 / 0 hardly counts here.
    assert dice(mask, truth).item() == pytest.approx(plain, abs=2e-3)
    assert dice(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert dice(1 - truth, truth).item() > 0.99
    assert dice(0 * truth, 0 * truth).item() == 0


def test_total_variation() -> None:
    layers = [torch.randn(2, 3, 7, 9, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)]
    wanted = 0.0
    for layer in layers:
        x = layer.numpy()
        wanted += np.abs(x[:, :, 1:] - x[:, :, :-1]).mean() + np.abs(x[..., 1:] - x[..., :-1]).mean()
    assert total_variation(layers).item() == pytest.approx(wanted, rel=1e-12)
    assert total_variation([torch.full((1, 3, 4, 4), 2.0)]).item() == 0


def test_objective() -> None:
    image, target = pair()
    model, output = output_of(image)
    objective = Objective(mse=1, absolute=2, dice=3, cross_entropy=4, total_variation=5, region=7)
    terms = objective.terms(output, target, model.blend, "binomial")
    targets = formulas.laplacian(target.numpy(), LEVELS)[0]
    results = retouched_pyramid(output.pyramid, output.blend_layers, output.low_res, model.blend)
    errors = [np.abs(r.detach().numpy() - t) for r, t in zip(results, targets, strict=True)]
    changed = [np.abs(i.numpy() - t).max(1, keepdims=True) > 0.02 for i, t in zip(output.pyramid, targets, strict=True)]
    assert terms["mse"].item() == pytest.approx(sum((e**2).mean() for e in errors))
    assert terms["absolute"].item() == pytest.approx(
        sum((np.where(c, 7, 1) * e).mean() for e, c in zip(errors, changed, strict=True))
    )
    assert terms["total_variation"].item() == pytest.approx(total_variation(output.blend_layers).item())
    assert 0 < terms["dice"].item() < 1 and terms["cross_entropy"].item() > 0
    weights = {"mse": 1, "absolute": 2, "dice": 3, "cross_entropy": 4, "total_variation": 5}
    assert objective.total(terms).item() == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()))


def test_objective_without_a_mask_branch() -> None:
    image, target = pair()
    model, output = output_of(image)
    terms = Objective().terms(output._replace(mask=None), target, model.blend, "binomial")
    assert set(terms) == {"mse", "absolute", "total_variation"}


def test_the_mask_is_drawn_to_the_changed_region() -> None:
    image, target = pair()
    model, output = output_of(image)
    output.mask.retain_grad()
    terms = Objective().terms(output, target, model.blend, "binomial")
    (terms["dice"] + terms["cross_entropy"]).backward(retain_graph=True)
    gradient = output.mask.grad
    assert (gradient[..., 1, 1] < 0).all() and (gradient[..., -1, -1] > 0).all()
