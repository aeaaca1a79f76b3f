"""The drop-in against the reference, its files and its bad input."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import abpn_fast
from abpn_fast import ABPN, ABPNConfig, Retouched, accelerate, checkpoint, reference, use_backend
from abpn_fast.reference import PolynomialBlend

TINY = ABPNConfig(encoder_widths=(4, 8, 8, 8, 8, 8))


def random_model(config: ABPNConfig = TINY, seed: int = 0) -> reference.ABPN:
    torch.manual_seed(seed)
    model = reference.ABPN(config)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model.eval()


def images(dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(1)
    sizes = [(1, 1, 1), (1, 1, 9), (2, 67, 43), (0, 16, 16), (1, 130, 257)]
    uniform = [torch.rand(n, 3, h, w) for n, h, w in sizes]
    if not dtype.is_floating_point:
        return [(image * torch.iinfo(dtype).max).round().to(dtype) for image in uniform]
    return [image.to(dtype) for image in uniform]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [None, torch.uint8, torch.uint16])
def test_equals_the_reference_bit_for_bit_on_its_backend(dtype: torch.dtype, stored: torch.dtype | None) -> None:
    model = random_model().to(dtype)
    fast = accelerate(model)
    for image in images(stored or dtype):
        for levels in (None, 0, 2):
            expected = model(image, levels=levels, return_intermediates=True)
            with use_backend("reference"):
                result = fast(image, levels=levels)
                full = fast(image, levels=levels, return_intermediates=True)
            assert torch.equal(result, expected.image)
            assert torch.equal(full.image, expected.image)
            assert torch.equal(full.mask, expected.mask)
            for mine, theirs in zip(full.blend_layers, expected.blend_layers, strict=True):
                assert torch.equal(mine, theirs)
            for mine, theirs in zip(full.pyramid[1:], expected.pyramid[1:], strict=True):
                assert torch.equal(mine, theirs)


@pytest.mark.parametrize("options", [{}, {"return_intermediates": True}, {"strip_rows": 32}], ids=str)
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_self_ensemble_in_every_way(levels: int, options: dict[str, int]) -> None:
    model = random_model()
    image = torch.rand(2, 3, 150, 83)
    expected = model(image, levels=levels, self_ensemble=True)
    assert (expected - model(image, levels=levels)).abs().max() > 1e-3
    with torch.no_grad():
        found = accelerate(model)(image, levels=levels, self_ensemble=True, **options)
        with use_backend("reference"):
            plain = accelerate(model)(image, levels=levels, self_ensemble=True, **options)
    found, plain = (part.image if isinstance(part, Retouched) else part for part in (found, plain))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert "strip_rows" in options or torch.equal(plain, expected)


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "expanded"])
def test_any_layout_gives_the_same_picture(layout: str) -> None:
    model = random_model()
    image = torch.rand(2, 3, 66, 51)
    expected = model(image)
    given = {
        "channels_last": lambda: image.to(memory_format=torch.channels_last),
        "sliced": lambda: torch.cat([torch.rand(2, 3, 66, 9), image, torch.rand(2, 3, 66, 5)], -1)[..., 9:60],
        "expanded": lambda: image[:1].expand(2, -1, -1, -1),
    }[layout]()
    expected = model(image[:1]).expand_as(image) if layout == "expanded" else expected
    torch.testing.assert_close(accelerate(model)(given), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    "options", [{"blend": "addition"}, {"blend": "soft_light"}, {"blend": "conv"}, {"blend": "rgb"}]
)
@pytest.mark.parametrize("extra", [{}, {"refining": False}, {"refining_levels": 2}, {"mask_branch": False}])
def test_every_ablation_equals_the_reference(options: dict[str, str], extra: dict[str, bool]) -> None:
    model = random_model(ABPNConfig(encoder_widths=TINY.encoder_widths, **options, **extra))  # type: ignore[arg-type]
    image = torch.rand(1, 3, 70, 45)
    with use_backend("reference"):
        assert torch.equal(accelerate(model)(image, levels=2), model(image, levels=2))


@pytest.mark.parametrize("intermediates", [False, True])
def test_mask_threshold_keeps_bits_below_it(intermediates: bool) -> None:
    model = accelerate(random_model())
    image = (torch.rand(1, 3, 90, 70) * 255).to(torch.uint8)
    untouched = model(image, levels=1, mask_threshold=2.0, return_intermediates=intermediates)
    assert torch.equal(untouched.image if isinstance(untouched, Retouched) else untouched, image)
    full = model(image, levels=1, return_intermediates=True)
    middle = full.mask.median().item() + 1e-4
    part = model(image, levels=1, mask_threshold=middle, return_intermediates=intermediates)
    part = part.image if isinstance(part, Retouched) else part
    below = reference.upsample(full.mask, (90, 70), 8) < middle
    assert 0 < below.float().mean() < 1
    assert torch.equal(part, torch.where(below, image, full.image))


def test_strength_zero_returns_the_image_and_scales_the_blend_layer() -> None:
    model = accelerate(random_model())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(image, strength=0.0), image)
    half, full = model(image, strength=0.5), model(image)
    torch.testing.assert_close(half - image, (full - image) / 2)


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_out_is_filled_and_returned(levels: int) -> None:
    model = accelerate(random_model())
    image, out = torch.rand(1, 3, 40, 40), torch.full((1, 3, 40, 40), torch.nan)
    with torch.no_grad():
        assert model(image, levels=levels, out=out) is out
        assert torch.equal(out, model(image, levels=levels))
        with pytest.raises(ValueError, match="out"):
            model(image, levels=levels, out=out[..., 1:])
    with pytest.raises(ValueError, match="out"):
        model(image, levels=levels, out=out)


def test_accelerate_shares_parameters_and_gradients_agree() -> None:
    model = random_model()
    fast = accelerate(model)
    assert [p.data_ptr() for p in fast.parameters()] == [p.data_ptr() for p in model.parameters()]
    assert list(fast.state_dict()) == list(model.state_dict())
    image = torch.rand(2, 3, 64, 48)
    losses = [network(image, levels=2).square().mean() for network in (model, fast)]
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_accelerate_leaves_frozen_norms_frozen() -> None:
    model = random_model().train()
    model.encoder.blocks[1].eval()
    before = [module.training for module in model.modules()]
    assert accelerate(model).training
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_gradients_under_another_default_dtype(dtype: torch.dtype) -> None:
    model, image = random_model(), images(torch.float32)[4]

    def gradients() -> list[Tensor]:
        loss = accelerate(model)(image, levels=2).square().mean()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    wanted = gradients()
    try:
        torch.set_default_dtype(dtype)
        found = gradients()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("options", [{}, {"strip_rows": 600}])
def test_a_default_device_is_not_the_images(options: dict[str, int]) -> None:
    fast, plain, image = accelerate(random_model()), accelerate(random_model()), torch.rand(1, 3, 1300, 1200)
    with torch.inference_mode():
        wanted = plain(image, levels=3)
        with torch.device("meta"):
            assert torch.equal(fast(image, levels=3, **options), wanted)
        assert torch.equal(fast(image, levels=3, **options), wanted)


def test_a_default_device_is_not_the_gradients() -> None:
    fast, image = accelerate(random_model()), images(torch.float32)[4].requires_grad_()
    with torch.device("meta"):
        fast(image, levels=2).sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


@pytest.mark.parametrize("output", ["residual", "direct"])
@torch.no_grad()
def test_mask_threshold_under_autocast(output: Literal["residual", "direct"]) -> None:
    model, image = random_model(dataclasses.replace(TINY, output=output)), images(torch.float32)[4]
    with torch.autocast("cpu", torch.bfloat16):
        wanted, found = (each(image, levels=2, mask_threshold=0.5) for each in (model, accelerate(model)))
    assert wanted.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["blend", "refining.0", "refining.0.conv1"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_full_backward_hook"])
def test_hooks_of_the_pyramid_are_called(name: str, register: str) -> None:
    def calls(model: reference.ABPN) -> int:
        seen: list[int] = []
        getattr(model.get_submodule(name), register)(lambda *_: seen.append(1))
        model(images(torch.float32)[4], levels=2).mean().backward()
        return len(seen)

    # The reference refines by its function, so that no convolution is called in either.
    assert calls(accelerate(random_model())) == calls(random_model())
    assert bool(calls(random_model())) is not name.endswith("conv1")


def test_another_refining_module_runs() -> None:
    class Doubled(reference.RefiningModule):
        def forward(self, blend_up: Tensor, high: Tensor) -> Tensor:
            return 2 * super().forward(blend_up, high)

    model = random_model()
    model.refining[0].__class__ = Doubled
    image = images(torch.float32)[4]
    with torch.no_grad():
        torch.testing.assert_close(accelerate(model)(image, levels=2), model(image, levels=2))


def test_another_way_back_from_the_blend_runs() -> None:
    class Halved(PolynomialBlend):
        def reverse(self, image: Tensor, retouched: Tensor) -> Tensor:
            return super().reverse(image, retouched) / 2

    model = random_model()
    model.blend.__class__ = Halved
    image = images(torch.float32)[4]
    with torch.no_grad():
        torch.testing.assert_close(accelerate(model)(image, levels=2), model(image, levels=2))


def test_on_meta_and_among_fake_tensors() -> None:
    image = torch.empty(1, 3, 300, 260, device="meta")
    assert ABPN(TINY).to("meta")(image, levels=2).shape == image.shape
    models = [ABPN(TINY).to(dtype).eval() for dtype in (torch.float32, torch.bfloat16)]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        for model in models:
            result = model(torch.empty(1, 3, 1300, 1200, dtype=torch.uint8), levels=3, mask_threshold=0.5)
            assert result.shape == (1, 3, 1300, 1200) and result.dtype == torch.uint8


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced() -> None:
    fast, image = accelerate(random_model()).requires_grad_(False), torch.rand(1, 3, 1300, 1200)
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: fast(x, levels=3, mask_threshold=0.5), image, check_trace=False)
        torch.testing.assert_close(traced(image), fast(image, levels=3, mask_threshold=0.5))


@torch.no_grad()
def test_exported(tmp_path: Path) -> None:
    model, image = accelerate(random_model()), torch.rand(2, 3, 150, 131)
    options: dict[str, Any] = {"levels": 1, "strength": 0.5}
    torch.export.save(torch.export.export(model, (image,), options), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    assert any("upsample_refine_blend" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(image, **options), model(image, **options), atol=1e-6, rtol=0)


def test_a_replica_is_refused() -> None:
    replica = ABPN(TINY).eval()._replicate_for_data_parallel()
    for module in replica.modules():
        module._parameters = {}
    replica._modules = {}
    with pytest.raises(RuntimeError, match="use DistributedDataParallel"):
        replica(torch.rand(1, 3, 64, 64))


def test_saved_and_loaded_again(tmp_path: Path) -> None:
    model = accelerate(random_model())
    model.save_pretrained(tmp_path / "m")
    again = ABPN.from_pretrained(tmp_path / "m")
    assert again.config == model.config and not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    model.save_pretrained(tmp_path / "m", dtype=torch.float16)
    stored = load_file(tmp_path / "m" / "model.safetensors")
    assert stored["blend.j"].dtype == torch.float16
    assert {x.dtype for name, x in stored.items() if name.endswith("num_batches_tracked")} == {torch.int64}
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]


def test_files_are_as_readable_as_any(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    model = accelerate(random_model())
    model.save_pretrained(tmp_path)
    files = [tmp_path / name for name in ("config.json", "model.safetensors")]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "plain").stat().st_mode}
    files[1].chmod(0o640)
    model.save_pretrained(tmp_path)
    assert files[1].stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_failed_save_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def full(tensors: dict[str, Tensor], path: Path, **_: object) -> None:
        path.write_bytes(b"half of it")
        raise kind("the disk is full")

    model = accelerate(random_model())
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="the disk is full"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_in_another_layout_are_stored_for_pytorch(tmp_path: Path) -> None:
    model = accelerate(random_model()).to(memory_format=torch.channels_last)
    folder = model.save_pretrained(tmp_path / "new" / "m")
    saved = ABPN.from_pretrained(folder).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_bundled_weights_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("c", "a", "d", "b", "without weights"):
        (tmp_path / name).mkdir()
        if len(name) == 1:
            (tmp_path / name / "model.safetensors").touch()
    monkeypatch.setattr(checkpoint, "_BUNDLED", tmp_path)
    assert checkpoint.bundled() == ["a", "b", "c", "d"]
    with pytest.raises(FileNotFoundError, match=r"no model 'e': it is none of the bundled weights \(a, b, c, d\)"):
        ABPN.from_pretrained("e")


def test_a_bundled_name_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    accelerate(random_model()).save_pretrained("small")
    for name in ("small", Path("small")):
        assert ABPN.from_pretrained(name).config == ABPNConfig.preset("small")
    assert ABPN.from_pretrained("./small").config == TINY


def test_parameters_that_share_memory_are_stored(tmp_path: Path) -> None:
    model = accelerate(random_model())
    model.encoder.blocks[4] = model.encoder.blocks[3]
    saved = ABPN.from_pretrained(model.save_pretrained(tmp_path)).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, "float16"])
def test_a_dtype_that_loses_the_weights_is_refused(tmp_path: Path, dtype: object) -> None:
    model = accelerate(random_model())
    with pytest.raises(TypeError, match=r"dtype must be a floating torch\.dtype"):
        model.save_pretrained(tmp_path, dtype=dtype)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match=r"dtype must be a floating torch\.dtype"):
        ABPN.from_pretrained(dtype=dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", ["cuda:99", "abacus", 1.5])
def test_a_device_that_is_not_there_is_named(absent: object) -> None:
    with pytest.raises(ValueError, match=f"device must be one that PyTorch has here, got {absent!r}: "):
        ABPN.from_pretrained(device=absent)  # type: ignore[arg-type]


@pytest.mark.parametrize("sensitivity", [1.5, -1])
def test_sensitivity_moves_the_masks_logit(tmp_path: Path, sensitivity: float) -> None:
    accelerate(random_model()).save_pretrained(tmp_path)
    image = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain, moved = (
            ABPN.from_pretrained(tmp_path, sensitivity=by)(image, levels=1, return_intermediates=True)
            for by in (0.0, sensitivity)
        )
    assert isinstance(plain, Retouched) and plain.mask is not None
    assert isinstance(moved, Retouched) and moved.mask is not None
    torch.testing.assert_close(moved.mask.logit(), plain.mask.logit() + sensitivity, rtol=1e-4, atol=1e-4)
    assert not torch.equal(moved.low_res, plain.low_res)


@pytest.mark.parametrize(
    ("sensitivity", "error", "words"),
    [
        (math.nan, ValueError, "sensitivity must be finite, got nan"),
        (-math.inf, ValueError, "sensitivity must be finite"),
        ("1", TypeError, "sensitivity must be a number, got '1'"),
        (True, TypeError, "sensitivity must be a number, got True"),
    ],
)
def test_no_such_sensitivity(sensitivity: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ABPN.from_pretrained(sensitivity=sensitivity)


def test_sensitivity_needs_a_mask(tmp_path: Path) -> None:
    ABPN(ABPNConfig.preset("small", mask_branch=False)).save_pretrained(tmp_path)
    ABPN.from_pretrained(tmp_path, sensitivity=0)
    with pytest.raises(ValueError, match="sensitivity needs a model with mask_branch=True"):
        ABPN.from_pretrained(tmp_path, sensitivity=1)


def damage_config(folder: Path) -> None:
    options = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(options | {"colour": 1}))


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def rename_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["blend.x"] = state.pop("blend.j")
    save_file(state, folder / "model.safetensors")


def drop_tensors(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: state[name] for name in sorted(state)[4:]}, folder / "model.safetensors")


def reshape(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["blend.j"] = torch.zeros(4)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (damage_config, ValueError, "config.json is not an ABPN config: .*colour"),
        (truncate, ValueError, "model.safetensors is not a whole safetensors file"),
        (
            rename_tensor,
            ValueError,
            "weights of '.*' do not fit its config: blend.j is missing; blend.x is unknown$",
        ),
        (drop_tensors, ValueError, r"config: (\S+ is missing; ){3}and 1 more$"),
        (reshape, ValueError, r"blend.j has shape \(4,\) instead of \(3,\)"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, "no model"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "no model"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, damage: object, error: type[Exception], words: str) -> None:
    accelerate(random_model()).save_pretrained(tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(error, match=words):
        ABPN.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("image", "options", "error", "words"),
    [
        (None, {}, TypeError, "image"),
        (torch.rand(3, 8, 8), {}, ValueError, "image"),
        (torch.rand(1, 4, 8, 8), {}, ValueError, "image"),
        (torch.rand(1, 3, 0, 8), {}, ValueError, "image"),
        (torch.rand(1, 3, 8, 8).double(), {}, TypeError, "image"),
        (torch.rand(1, 3, 8, 8), {"levels": -1}, ValueError, "levels"),
        (torch.rand(1, 3, 8, 8), {"levels": 1.5}, ValueError, "levels"),
        (torch.rand(1, 3, 8, 8), {"levels": True}, ValueError, "levels"),
        (torch.rand(1, 3, 8, 8), {"levels": 10**9}, ValueError, "levels must be None or an integer from 0 to 32"),
        (torch.rand(1, 3, 8, 8).to_sparse(), {}, TypeError, "image must be a dense tensor"),
        (torch.rand(1, 3, 8, 8, device="meta"), {}, ValueError, "image must be on cpu, the model's device, got meta"),
        (torch.rand(1, 3, 8, 8), {"strength": float("nan"), "levels": 0}, ValueError, "strength"),
        (torch.rand(1, 3, 8, 8), {"strength": None}, TypeError, "strength"),
        (torch.rand(1, 3, 8, 8), {"strength": True}, TypeError, "strength"),
        (torch.rand(1, 3, 8, 8), {"mask_threshold": True}, TypeError, "mask_threshold"),
    ],
)
def test_bad_arguments_are_named(image: object, options: dict[str, object], error: type[Exception], words: str) -> None:
    for model in (random_model(), accelerate(random_model())):
        with pytest.raises(error, match=words):
            model(image, **options)


@pytest.mark.parametrize("options", [{}, {"levels": 0}, {"return_intermediates": True}])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_are_finite(options: dict[str, object], value: float) -> None:
    for name in ("strength", "mask_threshold"):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            accelerate(random_model())(torch.rand(1, 3, 8, 8), **{name: value}, **options)


def test_what_is_no_config_or_size_is_named() -> None:
    for bad in (None, 5):
        with pytest.raises(TypeError, match=f"config must be .*got {bad}"):
            ABPN(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="height and width must be at least 1, got 0 and 0"):
        reference.default_levels(0, 0)


@pytest.mark.parametrize("options", [{}, {"levels": 0}, {"return_intermediates": True}, {"strip_rows": 8}])
def test_an_out_that_does_not_fit_is_refused(options: dict[str, object]) -> None:
    model, image = accelerate(random_model()), torch.rand(2, 3, 32, 24)
    for bad, words in (
        (image, "shares memory with an input"),
        (image[:1].clone().expand(2, -1, -1, -1), "shares memory between its own elements"),
        (torch.empty_like(image, device="meta"), "on cpu"),
        (torch.empty_like(image, requires_grad=True), "gradient"),
        (torch.empty(2, 3, 32, 23), "shape"),
        (image.double(), "dtype"),
        ([1], "a tensor, got list"),
    ):
        with torch.no_grad(), pytest.raises((TypeError, ValueError), match=rf"\bout\b.*{words}"):
            model(image, out=bad, **options)
    with torch.no_grad():
        halves = torch.rand(2, 6, 32, 24)
        expected = model(halves[:, :3], **options)
        found = model(halves[:, :3], out=halves[:, 3:], **options)
    if isinstance(found, Retouched):
        found, expected = found.image, expected.image
    assert found.data_ptr() == halves[:, 3:].data_ptr() and torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [None, torch.uint8, torch.uint16])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("mask_threshold", [None, 0.5])
def test_same_image_with_intermediates(
    dtype: torch.dtype, stored: torch.dtype | None, grad: bool, mask_threshold: float | None
) -> None:
    model = accelerate(random_model().to(dtype))
    image = images(stored or dtype)[-1]
    with torch.set_grad_enabled(grad):
        plain = model(image, levels=2, mask_threshold=mask_threshold)
        full = model(image, levels=2, mask_threshold=mask_threshold, return_intermediates=True)
    assert torch.equal(full.image, plain)


def test_options_that_a_model_lacks_are_refused() -> None:
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match="strength"):
        ABPN(ABPNConfig(encoder_widths=TINY.encoder_widths, blend="rgb")).eval()(image, strength=0.5)
    with pytest.raises(ValueError, match="mask_threshold"):
        ABPN(ABPNConfig(encoder_widths=TINY.encoder_widths, mask_branch=False)).eval()(image, mask_threshold=0.5)
    with pytest.raises(ValueError, match="levels"):
        ABPN(ABPNConfig(encoder_widths=TINY.encoder_widths, refining_levels=1)).eval()(image, levels=2)
    with pytest.raises(TypeError, match="model"):
        abpn_fast.accelerate(torch.nn.Identity())  # type: ignore[arg-type]


def test_nan_pixels_stay_local_in_the_pyramid_and_reach_the_result() -> None:
    model = accelerate(random_model())
    image = torch.rand(1, 3, 64, 64)
    image[0, 0, 3, 3] = torch.nan
    assert torch.isnan(model(image)[0, 0, 3, 3])
