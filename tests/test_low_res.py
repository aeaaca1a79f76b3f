"""The folded retouching layer against the modules it stands for, and when it must not run."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from abpn_fast import ABPN, accelerate, low_res, native, reference, use_backend
from abpn_fast.backends import cpu
from tests.accuracy import assert_same_bits, assert_within_budget
from tests.backends.instruction_sets import available
from tests.reference.networks import network, photo

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Grows by the working dtype whenever a model is folded."""
    seen: list[torch.dtype] = []
    plain = low_res.fold

    def counted(model: reference.ABPN, dtype: torch.dtype) -> low_res.Folded:
        seen.append(dtype)
        return plain(model, dtype)

    monkeypatch.setattr(low_res, "fold", counted)
    return seen


def check(model: reference.ABPN, image: Tensor) -> None:
    """Folded, mask and R_l are as close to float64 as the modules, twice over."""
    exact = copy.deepcopy(model).double()
    plain, wanted = model.retouch(image), exact.retouch(image.double())
    found = accelerate(model).retouch(image)
    for mine, theirs, truth in zip(found, plain, wanted, strict=True):
        if truth is None:
            assert mine is None and theirs is None
        else:
            assert mine.is_contiguous()
            assert_within_budget(mine, theirs, truth.numpy(), ulps=16)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 130)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_equals_the_modules(size: tuple[int, int], dtype: torch.dtype, folds: list[torch.dtype]) -> None:
    check(network().to(dtype), photo(*size, count=2).to(dtype))
    assert folds == [dtype]


@pytest.mark.parametrize("options", [{}, {"attention": "gated"}], ids=str)
@pytest.mark.parametrize("extra", [{}, {"mask_branch": False}, {"output": "direct"}], ids=str)
def test_every_form(options: dict[str, str], extra: dict[str, object], folds: list[torch.dtype]) -> None:
    check(network(**options, **extra), photo(70, 64))
    assert folds


def test_the_modules_run_for_parameters_without_a_version(folds: list[torch.dtype]) -> None:
    with torch.inference_mode():
        model, image = accelerate(network()), photo(64, 64)
        assert torch.equal(model.retouch(image)[1], reference.ABPN.retouch(model, image)[1])
    assert not folds


def test_empty_batch() -> None:
    mask, retouched = accelerate(network()).retouch(photo(70, 64, count=0))
    assert mask.shape == (0, 1, 18, 16) and retouched.shape == (0, 3, 70, 64)


def test_small_preset() -> None:
    check(ABPN.from_pretrained("small"), photo(256, 192))


def test_batch_norms_without_parameters() -> None:
    model = network()
    for block in model.encoder.blocks:
        block[1] = nn.BatchNorm2d(block[1].num_features, eps=0.4, affine=False).eval()
        block[1].running_var.fill_(0.5)
    check(model, photo(64, 64))


def test_biases_before_batch_norms() -> None:
    model = network()
    for block in model.encoder.blocks:
        block[0].bias = nn.Parameter(torch.linspace(-1, 1, block[0].out_channels))
    check(model, photo(64, 64))


def test_other_slopes() -> None:
    model = network()
    model.encoder.blocks[3][2] = nn.LeakyReLU(0.4)
    model.mask_branch.blocks[1][2].negative_slope = 0.7
    check(model, photo(64, 64))


def test_folded_once(folds: list[torch.dtype]) -> None:
    model = accelerate(network())
    for size in (64, 70, 64):
        model(photo(size, size))
    with torch.inference_mode():
        model(photo(64, 64))
    assert len(folds) == 1


def retrained(model: ABPN) -> None:
    with torch.enable_grad():
        model.train()(photo(64, 64, count=2)).mean().backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    model.eval()


def uncounted(model: ABPN) -> None:
    """A fused step: PyTorch does not count it as a change."""
    with torch.enable_grad():
        model(photo(64, 64)).sum().backward()
    torch.optim.Adam(model.parameters(), lr=0.01, fused=True).step()


def uncounted_later(model: ABPN) -> None:
    """As above, after another pass of inference."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model(photo(64, 64))
    torch.optim.Adam(model.parameters(), lr=0.01, fused=True).step()


def unseen(model: ABPN) -> None:
    """As collectives of torch.distributed write, then what their users do."""
    model.encoder.blocks[0][0].weight.data.mul_(1.1)
    model.eval()


CHANGES: dict[str, Callable[[ABPN], object]] = {
    "step": retrained,
    "statistics": lambda model: [model.train()(photo(64, 64, count=2)), model.eval()],
    "load": lambda model: model.load_state_dict(network().state_dict()),
    "write": lambda model: model.encoder.blocks[0][0].weight.mul_(1.1),
    "replace": lambda model: setattr(model, "encoder", network().encoder),
    "cast": lambda model: model.half().float(),
    "eps": lambda model: setattr(model.encoder.blocks[1][1], "eps", 0.5),
    "slope": lambda model: setattr(model.retouching_branch.blocks[0], "negative_slope", 0.9),
    "uncounted": uncounted,
    "uncounted later": uncounted_later,
    "unseen": unseen,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_folded_again_after_a_change(change: Callable[[ABPN], object], folds: list[torch.dtype]) -> None:
    model, image = accelerate(network()), photo(64, 64)
    model(image)
    change(model)
    folds.clear()
    check(model, image)
    _, retouched = model.retouch(image)
    torch.testing.assert_close(retouched, reference.ABPN.retouch(model, image)[1], atol=1e-5, rtol=0)
    # One for the fresh model in check, one here.
    assert len(folds) == 2


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_fold_for_themselves(again: Callable[[ABPN], ABPN], folds: list[torch.dtype]) -> None:
    model, image = accelerate(network()), photo(64, 64)
    names, before = set(model.state_dict()), model(image)
    copied = again(model)
    assert set(copied.state_dict()) == names
    copied.encoder.blocks[0][0].weight.mul_(-1)
    assert not torch.equal(copied(image), before)
    assert torch.equal(model(image), before)
    assert len(folds) == 2


def test_two_threads() -> None:
    model, image = accelerate(network()), photo(96, 64)
    expected, results = accelerate(network().eval()), []
    expected.load_state_dict(model.state_dict())
    wanted = expected(image)

    def call() -> None:
        with torch.no_grad():
            results.extend(model(image) for _ in range(5))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 10
    assert all(torch.equal(result, wanted) for result in results)


def hooked(model: ABPN) -> None:
    model.encoder.blocks[2].register_forward_hook(lambda *_: None)


def trained_norm(model: ABPN) -> None:
    model.encoder.blocks[2][1].train()


def norm_by_the_batch(model: ABPN) -> None:
    model.encoder.blocks[1][1] = nn.BatchNorm2d(model.encoder.blocks[1][1].num_features, track_running_stats=False)
    model.eval()


def instance_norm(model: ABPN) -> None:
    model.encoder.blocks[1][1] = nn.InstanceNorm2d(5).eval()


def another_forward(model: ABPN) -> None:
    block = model.encoder.blocks[2]
    block.forward = lambda x: 2 * type(block).forward(block, x)


def without_activation(model: ABPN) -> None:
    model.encoder.blocks[5][2] = nn.Identity()


def fused_norm(model: ABPN) -> None:
    for blocks in (model.encoder.blocks, model.mask_branch.blocks):
        convolution, norm, activation = blocks[2]
        blocks[2] = nn.Sequential(fuse_conv_bn_eval(convolution, norm.eval()), activation)


def another_padding(model: ABPN) -> None:
    model.encoder.blocks[2][0].padding_mode = "reflect"


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        hooked,
        trained_norm,
        norm_by_the_batch,
        instance_norm,
        another_forward,
        another_padding,
        without_activation,
        fused_norm,
    ],
)
def test_the_modules_run_where_folding_knows_less(change: Callable[[ABPN], object], folds: list[torch.dtype]) -> None:
    model, image = accelerate(network()), photo(64, 64, count=2)
    change(model)
    plain = copy.deepcopy(model)
    for mine, theirs in zip(model.retouch(image), reference.ABPN.retouch(plain, image), strict=True):
        assert torch.equal(mine, theirs)
    assert not folds


def test_the_modules_run_while_gradients_are_recorded(folds: list[torch.dtype]) -> None:
    model, image = accelerate(network()), photo(64, 64)
    with torch.enable_grad():
        assert model(image).requires_grad
        model.requires_grad_(False)
        assert model(image.requires_grad_()).requires_grad
        assert not folds
        assert not model(photo(64, 64)).requires_grad
    assert folds


def test_forward_mode_is_refused_and_not_dropped() -> None:
    model, image = accelerate(network()), photo(64, 64)
    model(image)
    weight = model.encoder.blocks[0][0].weight.detach()
    with forward_ad.dual_level():
        weights = {"encoder.blocks.0.0.weight": forward_ad.make_dual(weight, torch.ones_like(weight))}
        with pytest.raises(RuntimeError, match="no forward-mode derivative"):
            torch.func.functional_call(model, weights, image, {"levels": 1})


def test_nothing_is_kept_while_gradients_are_recorded(folds: list[torch.dtype]) -> None:
    model, image = accelerate(network()), photo(64, 64)
    for recording in (False, True, False):
        with torch.set_grad_enabled(recording):
            model(image)
    assert len(folds) == 2


def test_the_modules_run_for_the_context_block_and_under_autocast(folds: list[torch.dtype]) -> None:
    image = photo(64, 64)
    pcb = network(attention="pcb")
    assert torch.equal(accelerate(pcb).retouch(image)[1], pcb.retouch(image)[1])
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(accelerate(model).retouch(image)[1], model.retouch(image)[1])
    assert not folds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_bit_for_bit_on_backend_reference(dtype: torch.dtype, folds: list[torch.dtype]) -> None:
    model, image = network().to(dtype), photo(70, 64).to(dtype)
    fast = accelerate(model)
    fast(image, levels=0)
    with use_backend("reference"):
        folds.clear()
        for mine, theirs in zip(fast.retouch(image), model.retouch(image), strict=True):
            assert torch.equal(mine, theirs)
    assert not folds


def test_compiled_in_one_graph() -> None:
    model, image = accelerate(network()), photo(70, 64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), model(image), atol=1e-5, rtol=0)


@pytest.mark.skipif(native.why_missing() is not None, reason=native.why_missing() or "")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (200, 330)], ids=str)
def test_same_bits_for_any_number_of_threads(size: tuple[int, int], dtype: torch.dtype) -> None:
    model, image, before = ABPN.from_pretrained("small", dtype=dtype), photo(*size).to(dtype), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with use_backend("cpu"):
            plain = model.retouch(image)
            for threads in (2, 3, 16):
                torch.set_num_threads(threads)
                assert_same_bits(model.retouch(image), plain)
    finally:
        torch.set_num_threads(before)


class TestPrecision:
    def test_bf16_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if "avx512_bf16" not in available():
            pytest.skip("this CPU has no bf16 dot products")
        model, image, before = ABPN.from_pretrained("small"), photo(256, 192), cpu.instruction_set()
        monkeypatch.setenv("ABPN_FAST_CPU_PRECISION", "bf16")
        try:
            cpu.use_instruction_set("avx512")
            mask, plain = model.retouch(image)
            cpu.use_instruction_set("avx512_bf16")
            coarse_mask, coarse = model.retouch(image)
        finally:
            cpu.use_instruction_set(before)
        assert coarse.dtype == coarse_mask.dtype == torch.float32
        # What docs/performance.md states.
        assert 0 < (coarse - plain).abs().max() < 0.02
        assert (coarse - plain).abs().mean() < 0.001
        assert (coarse_mask - mask).abs().mean() < 0.002

    def test_unknown_value(self) -> None:
        code = "from abpn_fast.backends import cpu\ntry: print(cpu.precision())\nexcept ValueError as e: print(e)"
        for value, expected in (("bf16", "bf16"), ("", "float32"), ("int3", "must be float32 or bf16, got 'int3'")):
            environment = os.environ | {"ABPN_FAST_CPU_PRECISION": value}
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            assert expected in done.stdout
