from __future__ import annotations

import inspect
import logging
import sys
import threading
import types
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import abpn_fast
from abpn_fast import backends
from abpn_fast.backends import reference

REASON = "backend fake needs at least 4 rows"
IMAGE = torch.rand(1, 3, 6, 6)
FAKE, REAL = 7.0, 0.5


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A backend before all others that runs only ``pyramid_down``, on images of 4 rows or more, and gives 7."""
    module = types.ModuleType("abpn_fast.backends.fake")

    def why_not(operator: str, tensors: Sequence[Tensor]) -> str | None:
        if operator != "pyramid_down":
            return f"backend fake has no {operator}"
        return REASON if tensors and tensors[0].shape[2] < 4 else None

    def pyramid_down(image: Tensor, filter: str, out: Tensor) -> None:
        out.fill_(FAKE)

    module.why_not, module.pyramid_down = why_not, pyramid_down  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(backends, "BACKENDS", ("fake", "reference"))
    monkeypatch.setattr(backends, "_told", set())
    monkeypatch.delenv("ABPN_FAST_BACKEND", raising=False)
    return module


def used(rows: int = 6, backend: str | None = None) -> str:
    """The backend that ran."""
    result = abpn_fast.ops.pyramid_down(torch.full((1, 3, rows, 6), REAL), backend=backend)
    return {FAKE: "fake", REAL: "reference"}[result[0, 0, 0, 0].item()]


def test_automatic_is_the_first_that_can() -> None:
    assert used() == "fake"
    assert used(rows=3) == "reference"


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABPN_FAST_BACKEND", "reference")
    assert used() == "reference"
    with abpn_fast.use_backend("fake"):
        assert used() == "fake"
        assert used(backend="reference") == "reference"
        assert used(backend="auto") == "fake"
    assert used() == "reference"
    with abpn_fast.use_backend("auto"):
        assert used() == "fake"
    assert used(backend="fake") == "fake"


def test_an_empty_variable_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABPN_FAST_BACKEND", "")
    assert used() == "fake"


def test_contexts_nest_and_end_with_an_error() -> None:
    with abpn_fast.use_backend("reference"):
        with abpn_fast.use_backend("fake"):
            assert used() == "fake"
        assert used() == "reference"
        with pytest.raises(KeyError), abpn_fast.use_backend("fake"):
            raise KeyError
        assert used() == "reference"
    assert used() == "fake"


def test_threads_do_not_see_each_other() -> None:
    seen: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with abpn_fast.use_backend("fake"):
            inside.set()
            done.wait(10)
            seen.append(used())

    thread = threading.Thread(target=other)
    with abpn_fast.use_backend("reference"):
        thread.start()
        assert inside.wait(10)
        seen.append(used())
        done.set()
        thread.join()
        assert used() == "reference"
    assert seen == ["reference", "fake"]


def test_the_gradient_follows_the_choice_of_the_forward(
    monkeypatch: pytest.MonkeyPatch, fake: types.ModuleType
) -> None:
    def pyramid_down_backward(grads: list[Tensor], arguments: dict[str, Tensor], *_: object) -> list[Tensor]:
        assert grads[0].is_contiguous(), "a backend need not handle the strides of autograd"
        return [torch.full_like(arguments["image"], FAKE)]

    image = IMAGE.clone().requires_grad_()
    with abpn_fast.use_backend("fake"):
        result = abpn_fast.ops.pyramid_down(image)
    result.sum().backward()
    assert image.grad is not None and image.grad.sum().item() == pytest.approx(result.numel())
    fake.pyramid_down_backward = pyramid_down_backward  # type: ignore[attr-defined]
    with abpn_fast.use_backend("fake"):
        result = abpn_fast.ops.pyramid_down(image)
    (gradient,) = torch.autograd.grad(result.sum(), image)
    assert (gradient == FAKE).all()


def test_unknown_names_say_where_they_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "must be one of auto, fake, reference.*, got 'abacus'"
    with pytest.raises(ValueError, match=f"backend {message}"):
        used(backend="abacus")
    with pytest.raises(ValueError, match=f"name {message}"), abpn_fast.use_backend("abacus"):
        pass
    with pytest.raises(ValueError, match=f"backend {message.replace('auto, ', '(auto, )?')}"):
        abpn_fast.why_not("abacus")
    monkeypatch.setenv("ABPN_FAST_BACKEND", "abacus")
    with pytest.raises(ValueError, match=f"ABPN_FAST_BACKEND {message}"):
        used()
    assert used(backend="fake") == "fake"


def test_auto_is_no_backend_to_ask_about() -> None:
    with pytest.raises(ValueError, match=r"backend must be one of .*got 'auto'"):
        abpn_fast.why_not("auto")


def test_a_named_backend_that_cannot_run_raises_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=REASON):
        used(rows=3, backend="fake")
    with pytest.raises(RuntimeError, match=REASON), abpn_fast.use_backend("fake"):
        used(rows=3)
    monkeypatch.setenv("ABPN_FAST_BACKEND", "fake")
    with pytest.raises(RuntimeError, match=REASON):
        used(rows=3)


def test_a_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "abpn_fast"):
        assert [used(rows=3), used(rows=2), used()] == ["reference", "reference", "fake"]
    assert [record.getMessage() for record in caplog.records] == [REASON]


def test_a_missing_library_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(backends, "BACKENDS", ("cpu", "reference"))
    monkeypatch.setattr(backends.native, "why_missing", lambda backend="cpu": "backend cpu is not compiled")
    assert backends.choose("auto", "pyramid_down", [torch.rand(1, 3, 4, 4, dtype=torch.float64)]) == "reference"
    assert caplog.records == []
    for _ in range(2):
        assert backends.choose("auto", "pyramid_down", [torch.rand(1, 3, 4, 4)]) == "reference"
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("WARNING", "backend cpu is not compiled")
    ]


def test_nothing_can_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", ("fake",))
    with pytest.raises(RuntimeError, match="no backend can run pyramid_down on cpu"):
        used(rows=3)


def test_compatible_backends_and_reasons() -> None:
    assert abpn_fast.compatible_backends(operator="pyramid_down")[0] == "fake"
    assert "fake" not in abpn_fast.compatible_backends()
    assert "fake" not in abpn_fast.compatible_backends(IMAGE[:, :, :3], operator="pyramid_down")
    assert "reference" in abpn_fast.compatible_backends(IMAGE)
    assert abpn_fast.why_not("fake", IMAGE, operator="pyramid_down") is None
    assert abpn_fast.why_not("fake", IMAGE[:, :, :3], operator="pyramid_down") == REASON
    assert abpn_fast.why_not("fake", IMAGE) == "backend fake has no adaptive_blend"
    assert abpn_fast.why_not("reference", IMAGE) is None
    for ask in (abpn_fast.compatible_backends, lambda **options: abpn_fast.why_not("fake", **options)):
        with pytest.raises(ValueError, match=r"operator must be one of adaptive_blend, .*got 'blur'"):
            ask(operator="blur")


def test_what_no_operator_takes() -> None:
    integers = torch.zeros(1, 3, 4, 4, dtype=torch.int32)
    assert abpn_fast.compatible_backends(integers) == []
    assert "uint8, uint16 and floating tensors, got torch.int32" in (abpn_fast.why_not("reference", integers) or "")
    sparse = torch.zeros(1, 3, 4, 4).to_sparse()
    assert abpn_fast.compatible_backends(sparse, operator="pyramid_down") == []
    assert "dense tensors, got one of layout torch.sparse_coo" in (abpn_fast.why_not("reference", sparse) or "")
    with pytest.raises(RuntimeError, match=r"dense tensors, got one of layout torch\.sparse_coo"):
        torch.ops.abpn_fast.pyramid_down(sparse, "binomial", "reference")
    with pytest.raises(TypeError, match="tensors must be tensors, got int"):
        abpn_fast.why_not("reference", 3)  # type: ignore[arg-type]


def test_every_operator_has_a_function_in_the_reference() -> None:
    assert set(backends.OPERATORS) == set(abpn_fast.ops.__all__)
    assert all(callable(getattr(reference, name)) for name in backends.OPERATORS)


def test_an_operators_parameters_are_those_of_its_equation() -> None:
    for name in backends.OPERATORS:
        *parameters, last = (argument.name for argument in getattr(torch.ops.abpn_fast, name).default._schema.arguments)
        assert (parameters, last) == ([*inspect.signature(getattr(abpn_fast.reference, name)).parameters], "backend")


def test_an_operator_that_a_backend_lacks_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "OPERATORS", (*backends.OPERATORS, "blur"))
    for name in backends.BACKENDS:
        assert abpn_fast.why_not(name, IMAGE, operator="blur") == f"backend {name} has no blur"


def test_choice_in_a_compiled_graph() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(abpn_fast.ops.pyramid_down, fullgraph=True, backend="aot_eager", dynamic=True)
    assert (compiled(torch.full((1, 3, 6, 6), REAL)) == FAKE).all()
    assert (compiled(torch.full((1, 3, 3, 6), REAL)) == REAL).all()
    assert (compiled(torch.full((1, 3, 6, 6), REAL), backend="reference") == REAL).all()
