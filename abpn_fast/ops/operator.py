"""How an operator is made known to PyTorch: schema, shapes, gradient, and the way to the backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.autograd import forward_ad

from abpn_fast.backends import backward, choose, implementation, requested

_library = torch.library.Library("abpn_fast", "DEF")  # type: ignore[no-untyped-call]


class Like(NamedTuple):
    """What a result is: on the device and in the memory format of ``image``."""

    image: Tensor
    shape: Sequence[int]
    dtype: torch.dtype

    def empty(self) -> Tensor:
        """Uninitialised."""
        memory_format = torch.channels_last if is_channels_last(self.image) else torch.contiguous_format
        return torch.empty(self.shape, dtype=self.dtype, device=self.image.device, memory_format=memory_format)


class Operator:
    """``torch.ops.abpn_fast.<name>`` with its ``_out`` and ``_backward`` variants.

    Args:
        name: also that of the function in ``abpn_fast.reference`` and in every backend.
        parameters: in the schema language, without defaults, e.g. ``"Tensor image, float strength"``.
        result: from the arguments to what the result is like, or to a list where there are several.
        results: from what the reference function returns to the list of what the operator returns.
    """

    def __init__(
        self,
        name: str,
        parameters: str,
        result: Callable[..., Any],
        results: Callable[[Any], list[Tensor]] = lambda result: [result],
    ) -> None:
        self.name, self.result, self.results = name, result, results
        kinds = [parameter.split() for parameter in parameters.split(", ")]
        self.names = [parameter for _, parameter in kinds]
        self.tensors = [parameter for kind, parameter in kinds if kind.startswith("Tensor")]
        many = get_type_hints(result)["return"] == list[Like]
        self._define(name, f"({parameters}, str backend) -> {'Tensor[]' if many else 'Tensor'}", self._run, self._fake)
        out = "Tensor(a!)[] out" if many else "Tensor(a!) out"
        self._define(f"{name}_out", f"({parameters}, {out}, str backend) -> ()", self._run_out, lambda *_: None)
        self._define(
            f"{name}_backward",
            f"(Tensor[] grads, {parameters}, str[] wanted, str backend) -> Tensor[]",
            self._run_backward,
            self._fake_backward,
        )
        torch.library.register_autograd(
            f"abpn_fast::{name}", self._backward, setup_context=self._remember, lib=_library
        )
        namespace = torch.ops.abpn_fast
        self._call = getattr(namespace, name).default
        self._call_out = getattr(namespace, f"{name}_out").default
        self._call_backward = getattr(namespace, f"{name}_backward").default

    def __call__(self, *arguments: Any, out: Any, backend: str | None) -> Any:
        """Run on ``backend``, or what the context or the automatic choice names, into ``out`` where it is given."""
        name = requested(backend)
        if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
            self._refuse_transforms(_tensors(arguments))
        if out is None:
            return self._call(*arguments, name)
        self._check_out(arguments, out)
        self._call_out(*arguments, out, name)
        return out

    def _refuse_transforms(self, tensors: Sequence[Tensor]) -> None:
        """Forward mode would give zeros without a word, the gradients of ``torch.func`` an error about PyTorch."""
        transforms = {layer for tensor in tensors for layer in _transforms(tensor)}
        if "Jvp" in transforms:
            raise RuntimeError(f"{self.name} has no forward-mode derivative; abpn_fast.reference.{self.name} has")
        if "Grad" in transforms and torch.is_grad_enabled():
            raise RuntimeError(
                f"{self.name} has no gradient under torch.func; use torch.autograd.grad or "
                f"abpn_fast.reference.{self.name}"
            )

    def _define(self, name: str, schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
        _library.define(name + schema)  # type: ignore[no-untyped-call]
        _library.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"abpn_fast::{name}", fake, lib=_library)

    def _run(self, *arguments: Any) -> Any:
        *inputs, backend = arguments
        result = self._empty(*inputs)
        implementation(self._choose(backend, inputs), self.name)(*inputs, result)
        return result

    def _run_out(self, *arguments: Any) -> None:
        *inputs, out, backend = arguments
        outs = out if isinstance(out, list) else [out]
        implementation(self._choose(backend, [*inputs, *outs]), self.name)(*inputs, out)
        # So that autograd, and all else that counts writes, sees this one.
        torch.autograd.graph.increment_version([each for each in outs if not each.is_inference()])

    def _choose(self, backend: str, inputs: Sequence[Any]) -> str:
        # Here, not at the call: a compiled graph keeps the request and decides where it runs.
        return choose(backend, self.name, _tensors(inputs))

    def _fake(self, *arguments: Any) -> Any:
        return self._empty(*arguments[:-1])

    def _empty(self, *inputs: Any) -> Any:
        like = self.result(*inputs)
        return like.empty() if isinstance(like, Like) else [each.empty() for each in like]

    def _run_backward(self, grads: list[Tensor], *arguments: Any) -> list[Tensor]:
        *inputs, wanted, backend = arguments
        named = dict(zip(self.names, inputs, strict=True))
        found: list[Tensor] = backward(self._choose(backend, inputs), self.name)(grads, named, wanted, self.results)
        return found

    def _fake_backward(self, grads: list[Tensor], *arguments: Any) -> list[Tensor]:
        *inputs, wanted, _ = arguments
        named = dict(zip(self.names, inputs, strict=True))
        return [torch.empty_like(named[name], memory_format=torch.contiguous_format) for name in wanted]

    def _remember(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        values = dict(zip([*self.names, "backend"], inputs, strict=True))
        ctx.save_for_backward(*(values[name] for name in self.tensors))
        ctx.others = {name: value for name, value in values.items() if name not in self.tensors}
        outputs = output if isinstance(output, (list, tuple)) else [output]
        ctx.like = [(each.shape, each.dtype, each.device) for each in outputs]

    def _backward(self, ctx: Any, grad: Any) -> tuple[Any, ...]:
        grads = grad if isinstance(grad, (list, tuple)) else [grad]
        grads = [
            torch.zeros(shape, dtype=dtype, device=device) if each is None else each.contiguous()
            for each, (shape, dtype, device) in zip(grads, ctx.like, strict=True)
        ]
        values = ctx.others | dict(zip(self.tensors, ctx.saved_tensors, strict=True))
        needs = dict(zip(self.names, ctx.needs_input_grad, strict=False))
        wanted = [name for name in self.tensors if needs[name]]
        found = self._call_backward(grads, *(values[name] for name in self.names), wanted, values["backend"])
        if torch.is_grad_enabled():
            sources = [*grads, *(tensor for tensor in ctx.saved_tensors if tensor is not None)]
            found = [_once(self.name, gradient, sources) for gradient in found]
        by_name = dict(zip(wanted, found, strict=True))
        return (*(by_name.get(name) for name in self.names), None)

    def _check_out(self, arguments: Sequence[Any], out: Any) -> None:
        tensors = _tensors(arguments)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise ValueError(
                f"{self.name}: out cannot record gradients; call it under torch.no_grad() or leave out away"
            )
        like = self.result(*arguments)
        pairs = [(out, like)] if isinstance(like, Like) else list(zip(out, like, strict=True))
        for index, (given, expected) in enumerate(pairs):
            check_out(self.name, given, expected, tensors)
            if _overlaps(given, [other for other, _ in pairs[:index]]):
                raise ValueError(f"{self.name}: out shares memory with another out; give each a tensor of its own")


def check_out(name: str, given: Any, like: Like, tensors: Sequence[Tensor]) -> None:
    """Refuse ``given`` as the ``out`` of ``name`` unless it is ``like`` and shares no memory with ``tensors``."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: out must be a tensor, got {type(given).__name__}")
    if given.requires_grad:
        raise ValueError(f"{name}: out must not require a gradient, got a tensor that does; detach it")
    free = like.dtype.is_floating_point and not tensors[0].is_floating_point() and given.is_floating_point()
    if given.shape != like.shape or (given.dtype != like.dtype and not free):
        raise ValueError(
            f"{name}: out must have shape {tuple(like.shape)} and dtype {like.dtype}, "
            f"got {tuple(given.shape)} and {given.dtype}"
        )
    if given.device != tensors[0].device or given.layout != torch.strided:
        raise ValueError(
            f"{name}: out must be a dense tensor on {tensors[0].device}, got {given.layout} on {given.device}"
        )
    if _overlaps(given, tensors):
        raise ValueError(f"{name}: out shares memory with an input; give it a tensor of its own")
    if _overlaps_itself(given):
        raise ValueError(f"{name}: out shares memory between its own elements; give it a tensor that is not expanded")


class _OnlyOnce(torch.autograd.Function):
    """A gradient that knows its ``sources``, so that differentiating it again is an error and not a silent zero."""

    @staticmethod
    def forward(ctx: Any, name: str, gradient: Tensor, *sources: Tensor) -> Tensor:
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        raise RuntimeError(f"{ctx.name} has no second derivative; abpn_fast.reference.{ctx.name} has")


def _once(name: str, gradient: Tensor, sources: Sequence[Tensor]) -> Tensor:
    result: Tensor = _OnlyOnce.apply(name, gradient, *sources)  # type: ignore[no-untyped-call]
    return result


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    return [argument for argument in arguments if isinstance(argument, Tensor)]


def _transforms(x: Tensor) -> list[str]:
    """The derivatives that ``torch.func`` or ``torch.autograd.forward_ad`` takes through ``x``, "Grad" or "Jvp"."""
    functorch = torch._C._functorch
    if not functorch.is_functorch_wrapped_tensor(x):
        dual = forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
        return [] if dual.tangent is None else ["Jvp"]
    kinds = {each.level(): each.key().name for each in functorch.get_interpreter_stack() or ()}
    kind = kinds.get(functorch.maybe_get_level(x), "")
    taken = kind == "Jvp" or (kind == "Grad" and x.requires_grad)
    return [*([kind] if taken else []), *_transforms(functorch.get_unwrapped(x))]


def _overlaps(out: Tensor, others: Sequence[Tensor]) -> bool:
    others = [other for other in others if other.numel() > 0 and other.device == out.device]
    # Neither a compiled graph nor fake tensors have addresses.
    if out.numel() == 0 or out.device.type == "meta" or not others or torch.compiler.is_compiling() or is_fake(out):
        return False
    whole, extent = _all_of(out), _extent(out)
    # Most often apart already by what they were cut from.
    return any(
        not (_apart(whole, _all_of(other)) or _apart(extent, _extent(other)) or _alternate(out, other))
        for other in others
    )


def _overlaps_itself(x: Tensor) -> bool:
    reach = 0
    for stride, size in () if x.is_contiguous() else sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def _alternate(a: Tensor, b: Tensor) -> bool:
    """Whether the images, channels or rows of ``a`` and ``b`` take turns in one buffer, as the halves of each do."""
    strides = [[stride * x.element_size() for stride in x.stride()] for x in (a, b)]
    for step in set(strides[0]) & set(strides[1]) - {0}:
        within = [
            sum((size - 1) * stride for size, stride in zip(x.shape, some, strict=True) if stride < step)
            for x, some in zip((a, b), strides, strict=True)
        ]
        ahead = (b.data_ptr() - a.data_ptr()) % step
        beside = within[0] + a.element_size() <= ahead <= step - within[1] - b.element_size()
        if beside and all(stride % step == 0 for some in strides for stride in some if stride > step):
            return True
    return False


def _apart(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[1] <= b[0] or b[1] <= a[0]


def _all_of(x: Tensor) -> tuple[int, int]:
    storage = x.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def _extent(x: Tensor) -> tuple[int, int]:
    reach = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (reach + 1) * x.element_size()


def is_channels_last(image: Tensor) -> bool:
    """Whether a result in the memory format of ``image`` is channels_last."""
    return not image.is_contiguous() and image.is_contiguous(memory_format=torch.channels_last)
