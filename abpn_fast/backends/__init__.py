"""Which code runs an operator: by argument, by context, by ``ABPN_FAST_BACKEND``, or the first that can.

A backend is a module of this package with one function per operator it runs, of the same name, which takes the
operator's arguments, then ``out``, the tensors to fill; and ``why_not(operator, tensors)``, which says in one sentence
why it cannot run one of these (None when it can). Among the tensors, of which there may be none, are those of ``out``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from abpn_fast import native
from abpn_fast.reference.pixels import WHITE

_log = logging.getLogger("abpn_fast")
# In the order of the automatic choice.
BACKENDS = ("triton", "cuda", "cpu", "reference")
OPERATORS = (
    "adaptive_blend",
    "reverse_adaptive_blend",
    "pyramid_down",
    "laplacian_decompose",
    "upsample_refine",
    "upsample_refine_blend",
    "gated_conv",
)
_VARIABLE = "ABPN_FAST_BACKEND"
# Not a context variable: torch.compile cannot read one.
_context = threading.local()
_told: set[str] = set()


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every operator in the ``with`` block on backend ``name``; ``"auto"`` restores the automatic choice.

    Raises:
        ValueError: no such backend.
        RuntimeError: from an operator in the block that this backend cannot run, with the reason.
    """
    _known(name, "name")
    before = getattr(_context, "name", None)
    _context.name = name
    try:
        yield
    finally:
        _context.name = before


def compatible_backends(*tensors: Tensor, operator: str | None = None) -> list[str]:
    """The backends that can run ``operator`` (None: all operators) on tensors of this device, dtype and layout.

    Raises:
        ValueError: no such operator.
    """
    return [name for name in BACKENDS if why_not(name, *tensors, operator=operator) is None]


def why_not(backend: str, *tensors: Tensor, operator: str | None = None) -> str | None:
    """Why ``backend`` cannot run ``operator`` (None: one of the operators) on these tensors, in one sentence, or None.

    Raises:
        ValueError: no such backend or operator.
        TypeError: one of ``tensors`` is none.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if operator is not None and operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)}, got {operator!r}")
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors must be tensors, got {type(tensor).__name__}; an operator goes by operator=")
        if tensor.dtype not in WHITE and not tensor.is_floating_point():
            return f"the operators take uint8, uint16 and floating tensors, got {tensor.dtype}"
    for each in OPERATORS if operator is None else (operator,):
        reason = _refusal(backend, each, tensors)
        if reason is not None:
            return reason
    return None


def requested(argument: str | None) -> str:
    """The backend that a call asks for: its argument, else the context's, else the variable's, else ``"auto"``.

    Raises:
        ValueError: no such backend; the message says where the name came from.
    """
    context: str | None = getattr(_context, "name", None)
    if argument is not None:
        return _known(argument, "backend")
    if context is not None:
        return context
    return _known(os.environ.get(_VARIABLE) or "auto", _VARIABLE)


def choose(backend: str, operator: str, tensors: Sequence[Tensor]) -> str:
    """``backend``, or for ``"auto"`` the first that can run this call.

    What it passes over is logged once, with the reason; as a warning where backend ``cpu`` is not compiled, which would
    run the call many times as fast.

    Raises:
        RuntimeError: ``backend`` cannot run this call; the message is the reason.
    """
    if backend != "auto":
        reason = _refusal(backend, operator, tensors)
        if reason is not None:
            raise RuntimeError(reason)
        return backend
    for name in BACKENDS:
        if name == "triton" and tensors[0].device.type == "cpu":
            continue  # Its interpreter is for tests: only when asked for by name.
        reason = _refusal(name, operator, tensors)
        if reason is None:
            return name
        if reason not in _told:
            _told.add(reason)
            uncompiled = name == "cpu" and reason == native.why_missing("cpu")
            _log.log(logging.WARNING if uncompiled else logging.INFO, "%s", reason)
    raise RuntimeError(f"no backend can run {operator} on {', '.join(str(t.device) for t in tensors)}")


def implementation(backend: str, operator: str) -> Callable[..., Any]:
    """The function of ``backend`` that runs ``operator``."""
    function: Callable[..., Any] = getattr(_module(backend), operator)
    return function


def backward(backend: str, operator: str) -> Callable[..., Any]:
    """The function of ``backend`` that runs the gradient of ``operator``, or the reference's."""
    own = getattr(_module(backend), f"{operator}_backward", None)
    function: Callable[..., Any] = own or _module("reference").backward(operator)
    return function


def helper(backend: str, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """The function ``name`` of ``backend`` beside its operators, or ``default``.

    The folded retouching layer asks for functions made from filters by ``convolution(weight, bias, stride, slope)``,
    ``joined_convolution(weight, bias, slope)`` and ``attention(weight, bias, skip_weight, skip_bias, slope)``, of which
    the first and the last may be None for filters they do not take, and calls ``give_back()`` after the first of them
    ran; they are made again when ``arrangement(weight)`` has changed. ``abpn_fast.low_res`` has the defaults.
    """
    function: Callable[..., Any] = getattr(_module(backend), name, default)
    return function


def _known(name: str, source: str) -> str:
    if name not in (*BACKENDS, "auto"):
        raise ValueError(f"{source} must be one of auto, {', '.join(BACKENDS)}, got {name!r}")
    return name


def _refusal(backend: str, operator: str, tensors: Sequence[Tensor]) -> str | None:
    module = _module(backend)
    if not hasattr(module, operator):
        return f"backend {backend} has no {operator}"
    for tensor in tensors:
        if tensor.layout != torch.strided:
            return f"the operators take dense tensors, got one of layout {tensor.layout}"
    reason: str | None = module.why_not(operator, tensors)
    return reason


def _module(backend: str) -> ModuleType:
    return importlib.import_module(f"abpn_fast.backends.{backend}")
