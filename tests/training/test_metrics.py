from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from abpn_fast.training.classical import Method
from abpn_fast.training.evaluate import Row, evaluate, held_out, measure, named, summarise
from abpn_fast.training.losses import changed_region
from abpn_fast.training.metrics import absolute_error, intersection_over_union, psnr, ssim
from abpn_fast.training.photos import Pair, find_photos, load_photos
from abpn_fast.training.trainer import start_at_identity
from tests.reference.networks import network


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, 15, 17, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    return (target + noise).clamp(0, 1), target


def test_psnr() -> None:
    result, target = images()
    assert psnr(result, target) == pytest.approx(-10 * math.log10(np.mean((result - target).numpy() ** 2)))
    assert psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)) == pytest.approx(20, abs=1e-4)
    assert psnr(target, target) == 100


def test_inside_and_outside() -> None:
    result, target = images()
    region = torch.zeros(2, 1, 15, 17, dtype=torch.float64)
    region[..., 3:9, 4:8] = 1
    inside = (result - target)[..., 3:9, 4:8].numpy()
    assert psnr(result, target, region) == pytest.approx(-10 * math.log10(np.mean(inside**2)))
    assert absolute_error(result, target, region) == pytest.approx(np.abs(inside).mean())
    everywhere = np.abs((result - target).numpy())
    assert absolute_error(result, target) == pytest.approx(everywhere.mean())
    outside = (everywhere.sum() - np.abs(inside).sum()) / (everywhere.size - inside.size)
    assert absolute_error(result, target, 1 - region) == pytest.approx(outside)


def slow_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, one window at a time: Gaussian, 11 x 11, sigma 1.5, K = (0.01, 0.03), L = 1."""
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for n, c, top, left in np.ndindex(*x.shape[:2], x.shape[2] - 10, x.shape[3] - 10):
        a, b = (z[n, c, top : top + 11, left : left + 11] for z in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        covariance = (window * (a - mean_a) * (b - mean_b)).sum()
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        values.append(luminance * (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4))
    return float(np.mean(values))


def test_ssim() -> None:
    result, target = images()
    assert ssim(result, target) == pytest.approx(slow_ssim(result.numpy(), target.numpy()), abs=1e-12)
    assert ssim(result.float(), target.float()) == pytest.approx(slow_ssim(result.numpy(), target.numpy()), abs=1e-4)
    assert ssim(target, target) == pytest.approx(1)
    assert ssim(result, target) == pytest.approx(ssim(target, result))
    # Without structure only the luminance term is left.
    flat = (torch.full((1, 3, 11, 11), value, dtype=torch.float64) for value in (0.2, 0.8))
    assert ssim(*flat) == pytest.approx((2 * 0.16 + 1e-4) / (0.04 + 0.64 + 1e-4))


def test_ssim_against_torchmetrics() -> None:
    """Which counts windows over mirrored borders as well; those of whole windows are the same."""
    module = pytest.importorskip("torchmetrics.functional.image")
    result, target = images()
    _, full = module.structural_similarity_index_measure(result, target, data_range=1.0, return_full_image=True)
    assert ssim(result, target) == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-9)


def test_intersection_over_union() -> None:
    mask, truth = torch.tensor([0.9, 0.6, 0.4, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert intersection_over_union(mask, truth) == pytest.approx(1 / 3)
    assert intersection_over_union(truth, truth) == intersection_over_union(0 * truth, 0 * truth) == 1


def test_what_is_not_finite_scores_nan() -> None:
    result, target = images()
    result[0, 0, 0, 0] = math.nan
    assert math.isnan(psnr(result, target)) and math.isnan(psnr(result * math.inf, target))
    assert math.isnan(intersection_over_union(result, target))


@pytest.mark.parametrize(("gain", "better"), [(math.nan, 0), (5e-4, 0), (2e-3, 1)])
def test_better_is_a_true_improvement(gain: float, better: float) -> None:
    untouched = {"psnr_inside": 20.0, "lpips_x": 0.1}
    model = {"psnr_inside": 20 + gain, "lpips_x": 0.1 - gain / 1e3}
    means = summarise([Row("a", "model", model), Row("a", "identity", untouched)])
    assert (means["model"]["better"], means["model"]["lpips_x_better"]) == (better, better)


def pairs() -> list[Pair]:
    photo = np.random.default_rng(0).integers(60, 200, (96, 96, 3), dtype=np.uint8)
    clean = torch.from_numpy(photo).permute(2, 0, 1)[None]
    spotted = clean.clone()
    spotted[..., 20:40, 30:50] //= 2
    return [Pair(spotted, clean, 1)]


def test_evaluation_of_doing_nothing_is_its_own_identity_row() -> None:
    scores = evaluate(start_at_identity(network()), pairs())
    names = {"psnr_inside", "psnr_outside", "psnr", "ssim", "mae_inside", "mae_outside", "mae"}
    assert set(scores) == names | {f"identity_{name}" for name in names} | {"better", "mask_iou"}
    for name in names:
        assert scores[name] == pytest.approx(scores[f"identity_{name}"], rel=1e-4)
    assert scores["psnr_outside"] == scores["identity_psnr_outside"] == 100
    assert scores["identity_psnr_inside"] < 20
    assert 0 <= scores["mask_iou"] <= 1


def test_evaluation_of_a_perfect_result() -> None:
    (pair,) = pairs()

    class Oracle(torch.nn.Module):
        config = network().config

        def forward(self, image: torch.Tensor, **options: object) -> object:
            output = network()(image, **options)
            mask = torch.zeros_like(output.mask)
            mask[..., 2:5, 3:7] = 1
            return output._replace(image=pair.target / 255, mask=mask)

    scores = evaluate(Oracle(), [pair])
    assert scores["psnr_inside"] == scores["psnr"] == 100 and scores["better"] == 1
    assert scores["mae_inside"] == 0 and scores["ssim"] == pytest.approx(1)
    assert scores["mask_iou"] > 0.5


def test_a_model_is_measured_in_eval_mode() -> None:
    model = start_at_identity(network()).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    evaluate(model, pairs())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_what_is_beyond_white_counts_as_white() -> None:
    class Glaring(torch.nn.Module):
        config = network().config

        def forward(self, image: torch.Tensor, **options: object) -> object:
            return network()(image, **options)._replace(image=torch.where(image > 0, 3.0, -1.0))

    image = torch.full((1, 3, 96, 96), 255, dtype=torch.uint8)
    image[..., :30, :30] = 0
    scores = evaluate(Glaring(), [Pair(image, image.clone().index_fill_(2, torch.tensor([50]), 128), 1)])
    assert scores["psnr_outside"] == scores["identity_psnr_outside"] == 100
    assert scores["mae"] == scores["identity_mae"]


def test_nothing_to_evaluate() -> None:
    (pair,) = pairs()
    with pytest.raises(ValueError, match="no pair to evaluate"):
        evaluate(network(), [pair._replace(image=pair.target)])


def test_held_out_pairs_are_fixed() -> None:
    photos = [[np.random.default_rng(n).integers(0, 256, (800, 780, 3), dtype=np.uint8)] for n in range(2)]
    first, second = held_out(photos), held_out(photos)
    assert [pair.levels for pair in first] == [0, 1, 2] * 2
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.target, b.target)
    assert all(pair.image.dtype == torch.uint8 and pair.image.shape[:2] == (1, 3) for pair in first)


def test_self_ensemble_is_what_is_measured() -> None:
    (pair,) = pairs()
    model, image, target = network(), pair.image / 255, pair.target / 255
    (row, _) = measure(model, [pair], self_ensemble=True)
    with torch.no_grad():
        result = model(image, levels=pair.levels, self_ensemble=True).clamp(0, 1)
    assert row.scores["mae"] == pytest.approx((result - target).abs().mean().item(), rel=1e-6)
    assert row.scores["mae"] != measure(model, [pair])[0].scores["mae"]


def test_rows_of_other_methods_and_of_lpips() -> None:
    (pair,) = pairs()
    target = pair.target / 255
    region = (changed_region(pair.image / 255, target) > 0).expand_as(target)
    blank = Method(lambda photo, mask, scale: np.full_like(photo, 128), None)
    masked = Method(lambda photo, mask, scale: photo, "model")
    told = Method(lambda photo, mask, scale: np.where(mask[..., None] > 0, 128, photo).astype(np.uint8), "truth")
    methods = {"blank": blank, "m": masked, "told": told}
    distance = lambda a, b: (a - b).abs().mean((1, 2, 3))  # noqa: E731
    rows = measure(network(), [pair], names=["dog"], methods=methods, lpips={"x": distance})
    assert [(row.image, row.method) for row in rows] == [("dog", name) for name in ("model", "identity", *methods)]
    scores = {row.method: row.scores for row in rows}
    assert scores["blank"]["mae"] == pytest.approx((target - 128 / 255).abs().mean().item(), rel=1e-5)
    assert scores["blank"]["lpips_x"] == pytest.approx(scores["blank"]["mae"], rel=1e-5)
    assert scores["m"] == pytest.approx(scores["identity"])
    assert scores["told"]["mae_outside"] == scores["identity"]["mae_outside"]
    assert scores["told"]["mae_inside"] == pytest.approx((target - 128 / 255).abs()[region].mean().item(), rel=1e-5)
    means = summarise(rows)
    assert means["m"]["lpips_x_better"] == 0 and "lpips_x_better" not in means["identity"]
    flat = evaluate(network(), [pair], {"x": distance})
    assert {"lpips_x", "identity_lpips_x", "lpips_x_better"} <= set(flat)
    without = measure(network(mask_branch=False), [pair], methods=methods)
    assert [row.method for row in without] == ["model", "identity", "blank", "told"]


def test_pairs_of_a_folder_have_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("src", "gt"):
        (tmp_path / folder).mkdir()
    for name in range(4):
        photo = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(photo).save(tmp_path / "src" / f"{name}.png")
        photo[10:20, 10:20] //= 2
        Image.fromarray(photo).save(tmp_path / "gt" / f"{name}.png")
    test, names = named([tmp_path], size=64, levels=1)
    assert len(test) == len(names) == 1
    (pair,) = test
    assert pair.levels == 1 and pair.image.shape == (1, 3, 64, 64)
    photo = np.asarray(Image.open(names[0]).resize((64, 43), Image.Resampling.LANCZOS, reducing_gap=3.0))
    assert np.array_equal(pair.image[0, :, :43].permute(1, 2, 0).numpy(), photo)
    everything, all_names = named([tmp_path], size=64, every=True)
    assert len(everything) == 4 and sorted(all_names) == [str(tmp_path / "src" / f"{name}.png") for name in range(4)]
    assert len(measure(network(), everything, names=all_names)) == 8
    cut = Path(all_names[1])
    cut.write_bytes(cut.read_bytes()[:-300])
    assert named([tmp_path], size=64, every=True, bad="skip")[1] == [all_names[0], *all_names[2:]]
    with pytest.raises(ValueError, match="pairs come from one folder, got 2"):
        named([tmp_path, tmp_path])


def test_held_out_crops_have_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 256, (90, 80, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    crops, names = named([tmp_path])
    assert names == [f"{tmp_path / file}, l = {levels}" for file in ("a.png", "b.png") for levels in (0, 1, 2)]
    (tmp_path / "aa.png").write_bytes((tmp_path / "a.png").read_bytes()[:-300])
    assert named([tmp_path], bad="skip")[1] == names
    (tmp_path / "aa.png").unlink()
    again = held_out(load_photos(find_photos([tmp_path])))
    assert all(torch.equal(a.image, b.image) for a, b in zip(crops, again, strict=True))
