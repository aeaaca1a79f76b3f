"""The drop-in: the network of ``abpn_fast.reference``, its pyramid computed by the operators."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from abpn_fast import checkpoint, low_res, low_res_training, ops, reference, sparse, strips
from abpn_fast.backends import choose, requested
from abpn_fast.config import ABPNConfig
from abpn_fast.graphed import Graphed
from abpn_fast.ops.operator import Like, check_out
from abpn_fast.prepared import Prepared
from abpn_fast.reference import PolynomialBlend, RefiningModule, Retouched, mask_scale
from abpn_fast.reference.arguments import integer, number
from abpn_fast.spare import Spare, worth_lending

# M, where there is one, and R_l from I_l.
_Retouch = Callable[[Tensor], tuple[Tensor | None, Tensor]]


class _Call(NamedTuple):
    """What one call of ``forward`` asks for, checked."""

    levels: int
    retouch: _Retouch
    strength: float
    mask_threshold: float | None
    out: Tensor | None


class ABPN(reference.ABPN):
    """Adaptive Blend Pyramid Network: constructor, parameters and results of ``abpn_fast.reference.ABPN``.

    What is as large as the image goes through ``abpn_fast.ops`` and so runs on the fastest backend that can; on backend
    ``reference`` the result equals the reference's bit for bit. The ablations without an operator (``blend="conv"``,
    ``refining=False``) and ``levels=0`` run as the reference does.

    Args:
        config: the options, or the name of a preset, ``"base"``, ``"medium"`` or ``"small"``.
    """

    def __init__(self, config: ABPNConfig | str = "base") -> None:
        super().__init__(config)
        self._folded: Prepared[low_res.Layer] = Prepared()

    def train(self, mode: bool = True) -> ABPN:
        """As of any module; what is kept of the weights for inference is made anew."""
        self._folded.clear()
        return super().train(mode)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "small",
        *,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        sensitivity: float = 0.0,
    ) -> ABPN:
        """A trained model, in eval mode: bundled weights by name, or a folder written by :meth:`save_pretrained`.

        Args:
            name_or_path: of the weights.
            dtype, device: of the parameters.
            sensitivity: how readily it takes something for a blemish: added to the bias of the mask branch's head, so
                to the logit of M everywhere. 0 is as trained; from -2 to 2 is of use.

        Raises:
            FileNotFoundError: neither bundled weights nor a folder with both files; the message lists what there is.
            ValueError: the files are damaged or do not fit each other, there is no such device, ``sensitivity`` is not
                finite, or not 0 for a model without a mask branch; with the reason.
            TypeError: ``dtype`` is not a floating one, ``sensitivity`` not a number.
        """
        checkpoint.check_dtype(dtype)
        checkpoint.check_device(device)
        config, state = checkpoint.read(name_or_path)
        model = cls(config)
        checkpoint.load_strictly(model, state, name_or_path)
        _set_sensitivity(model, sensitivity)
        return model.to(device=device, dtype=dtype).eval()

    def save_pretrained(self, folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None) -> Path:
        """Write ``config.json`` and ``model.safetensors``, each whole or not at all, and return the folder.

        Args:
            folder: made where it does not exist.
            dtype: of the stored floating tensors, a floating one; None for their own.

        Raises:
            TypeError: ``dtype`` is not a floating one.
        """
        return checkpoint.write(folder, self.config, self.state_dict(), dtype)

    def forward(
        self,
        image: Tensor,
        *,
        levels: int | None = None,
        strength: float = 1.0,
        mask_threshold: float | None = None,
        self_ensemble: bool = False,
        out: Tensor | None = None,
        return_intermediates: bool = False,
        strip_rows: int | None = None,
    ) -> Tensor | Retouched:
        """Retouch ``image``.

        Args:
            image: I_0, (N, 3, H, W), sRGB in [0, 1] in the dtype of the parameters, uint8 or uint16; any strides.
            levels: l, how often the image is halved before the retouching layer; None for ``default_levels``, a
                thumbnail of about 256 pixels. Smaller blemishes than one thumbnail pixel are out of its sight.
            strength: scales B_0; 0 returns the image, 1 the full retouch.
            mask_threshold: where the mask, upsampled to the image, is below it, the pixels of ``image`` stay.
            self_ensemble: take the mean of what the retouching layer makes of I_l and of its three mirror images: four
                times that layer's time and nine more images of I_l's size, for a little more quality.
            out: R_0 is written there, shape and dtype of ``image``; no gradients then.
            return_intermediates: return all of ``Retouched`` instead of R_0; B_0 then takes memory as the image does.
            strip_rows: compute this many rows of the result at a time, or the next fitting number above: memory beyond
                the image and the result then grows with the width alone. Same bits as the whole on backend ``cpu``.
                Without effect where the model runs as the reference does (see the class).

        Returns:
            R_0, (N, 3, H, W), in the dtype of ``image``, or ``Retouched``.

        Raises:
            TypeError, ValueError: an argument does not fit; the message names it.
        """
        levels, strength, mask_threshold = self.check(image, levels, strength, mask_threshold)
        if strip_rows is not None:
            strip_rows = integer("strip_rows", strip_rows, 1, optional=True)
            if return_intermediates:
                raise ValueError("strip_rows keeps no intermediates; leave out strip_rows or return_intermediates")
        if out is not None:
            self._check_out(out, image)
        if levels == 0 or not self._has_operators():
            plain = super().forward(
                image,
                levels=levels,
                strength=strength,
                mask_threshold=mask_threshold,
                self_ensemble=self_ensemble,
                return_intermediates=True,
            )
            assert isinstance(plain, Retouched)
            result = plain if out is None else plain._replace(image=out.copy_(plain.image))
            return result if return_intermediates else result.image
        call = _Call(levels, self.retouch_mirrored if self_ensemble else self.retouch, strength, mask_threshold, out)
        if strip_rows is not None:
            return self._in_strips(image, call, strip_rows)
        return self._all(image, call) if return_intermediates else self._whole(image, call)

    def graphed(
        self,
        example: Tensor,
        *,
        levels: int | None = None,
        strength: float = 1.0,
        mask_threshold: float | None = None,
        self_ensemble: bool = False,
    ) -> Graphed:
        """``forward`` recorded as one CUDA graph, for inference on images like ``example``; call it with an image.

        The graph has a copy of the parameters as they are now: after a change record another one.

        Args:
            example: (N, 3, H, W), on the GPU, as for ``forward``.
            levels, strength, mask_threshold, self_ensemble: of every call.

        Returns:
            A function of an image; it keeps its own image, weights and all that is computed from them.

        Raises:
            ValueError, TypeError: an argument does not fit, the model is training, or ``example`` is not on a GPU.
        """
        if self.training:
            raise ValueError("graphed is for inference; call model.eval() first")
        levels, strength, mask_threshold = self.check(example, levels, strength, mask_threshold)
        # A copy: the graph reads addresses, which a change of these weights or their end would make another's.
        with torch.inference_mode(False), torch.no_grad():
            model = copy.deepcopy(self)

        def run(image: Tensor) -> Tensor:
            result = model(
                image, levels=levels, strength=strength, mask_threshold=mask_threshold, self_ensemble=self_ensemble
            )
            assert isinstance(result, Tensor)
            return result

        return Graphed(run, example)

    def _has_operators(self) -> bool:
        """Whether the operators do what blend and refining modules would, and nobody waits for these to be called."""
        if not self.config.refining or not isinstance(self.blend, PolynomialBlend):
            return False
        if type(self.blend).reverse is not PolynomialBlend.reverse or not _is_unobserved(self.blend, PolynomialBlend):
            return False
        return all(_is_unobserved(module, RefiningModule) for module in self.refining)

    def _check_out(self, out: Tensor, image: Tensor) -> None:
        if torch.is_grad_enabled() and any(x.requires_grad for x in (image, *self.parameters())):
            raise ValueError("out cannot record gradients; call the model under torch.no_grad() or leave out away")
        check_out("ABPN", out, Like(image, image.shape, image.dtype), [image])

    def _all(self, image: Tensor, call: _Call) -> Retouched:
        levels, retouch, strength, mask_threshold, out = call
        assert isinstance(self.blend, PolynomialBlend)
        pyramid = [image]
        for _ in range(levels):
            pyramid.append(self._down(pyramid[-1]))
        mask, low_res, layer = self._blend_layer(pyramid[-1], retouch)
        layers = [layer]
        for i in reversed(range(levels)):
            layers.insert(0, ops.upsample_refine(layers[0], pyramid[i], pyramid[i + 1], *self._weights(i)))
        if mask_threshold is None and layer.dtype in (torch.float32, torch.float64):
            # Nothing is lost by storing B_0: the same bits as of the finest level in one, which would compute it again.
            result = ops.adaptive_blend(image, layers[0], self.blend.j, self.blend.k, strength=strength, out=out)
        else:
            result = self._finest(layers[1], image, pyramid[1], strength, mask, mask_threshold, out)
        return Retouched(result, mask, low_res, layers, pyramid)

    def _whole(self, image: Tensor, call: _Call) -> Tensor:
        levels, retouch, strength, mask_threshold, out = call
        result = self._lendable(image, levels) if out is None else out
        spare = Spare(result if out is None else None)
        pyramid = [image, self._down(image)]
        for _ in range(1, levels):
            pyramid.append(self._down(pyramid[-1], spare))
        mask, layer = self._blend_layer(pyramid[-1], retouch, spare)[::2]
        parts = self._parts(pyramid, layer, mask, mask_threshold)
        if parts is not None:
            layer = sparse.expand(pyramid, layer, parts, self._weights)
        else:
            for i in reversed(range(1, levels)):
                # B_1 is still needed while the result is written.
                target = spare.take(pyramid[i], pyramid[i].shape, layer.dtype) if i > 1 else None
                # Taken off the list, so that each level is freed after its last use.
                layer = ops.upsample_refine(layer, pyramid[i], pyramid.pop(), *self._weights(i), out=target)
        return self._finest(layer, image, pyramid[1], strength, mask, mask_threshold, result)

    def _lendable(self, image: Tensor, levels: int) -> Tensor | None:
        """R_0 before its time, to lend its memory, where that is worth it."""
        if not self._lends(image) or not worth_lending(image.numel(), levels):
            return None
        return Like(image, image.shape, image.dtype).empty()

    def _lends(self, image: Tensor) -> bool:
        """Whether levels may lie in memory that is used again: on a CPU, where no gradient needs them."""
        if not low_res.is_plain_call(image) or image.device.type != "cpu":
            return False
        return not torch.is_grad_enabled() or not any(x.requires_grad for x in (image, *self.parameters()))

    def _parts(
        self, pyramid: list[Tensor], layer: Tensor, mask: Tensor | None, mask_threshold: float | None
    ) -> list[sparse.Rectangle] | None:
        """Where the levels between need to be expanded, if not everywhere: on a CPU, where looking costs nothing."""
        if mask is None or mask_threshold is None or len(pyramid) < 3 or not low_res.is_plain_call(mask):
            return None
        recording = torch.is_grad_enabled() and layer.requires_grad
        if recording or choose(requested(None), "upsample_refine", [layer, *pyramid[1:]]) != "cpu":
            return None
        return sparse.rectangles(mask, mask_threshold)

    def _in_strips(self, image: Tensor, call: _Call, strip_rows: int) -> Tensor:
        levels, retouch, strength, mask_threshold, out = call
        whole = strips.coarse(image, levels, strip_rows, self._down)
        mask, layer = self._blend_layer(whole[-1], retouch)[::2]
        scale = None
        if mask is not None and mask_threshold is not None:
            scale = mask_scale((image.shape[2], image.shape[3]), (mask.shape[2], mask.shape[3]))
        out = torch.empty_like(image, memory_format=torch.preserve_format) if out is None else out
        in_place = self._lends(image)
        room = strips.room(image, levels, strip_rows, self.dtype.itemsize) if in_place else 0
        spare = Spare(torch.empty(room, dtype=torch.uint8, device=image.device) if room else None)
        down = functools.partial(self._down, spare=spare)
        for strip in strips.strips(image, whole, levels, strip_rows, down, scale):
            part = None if mask is None or scale is None else strip.masked(mask, scale)
            finer, coarser = strip.level(0), strip.below(0)
            blend = strips.expand(strip, layer, self._weights, spare)
            finest = functools.partial(self._finest, blend, finer, coarser, strength, part, mask_threshold)
            if in_place:
                strip.write(finest, out)
            else:
                strip.rows.of(out).copy_(strip.rows.of(finest(None), strip.needed[0].begin))
            # Before the next strip is made.
            del strip, finer, coarser, blend, finest
            spare.reset()
        return out

    def _blend_layer(
        self, thumbnail: Tensor, retouch: _Retouch, spare: Spare | None = None
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """``(M, R_l, B_l)`` from I_l."""
        assert isinstance(self.blend, PolynomialBlend)
        mask, retouched = retouch(thumbnail)
        # Under autocast the branch computes in half precision, the operators do not.
        retouched = retouched.to(thumbnail.dtype)
        j, k, damping = self.blend.j, self.blend.k, self.blend.damping
        target = None if spare is None else spare.take(thumbnail, thumbnail.shape, thumbnail.dtype)
        return mask, retouched, ops.reverse_adaptive_blend(thumbnail, retouched, j, k, damping=damping, out=target)

    def retouch(self, thumbnail: Tensor) -> tuple[Tensor | None, Tensor]:
        """The local retouching layer, LRL: ``(M, R_l)`` from I_l, (N, 3, h, w); see ``abpn_fast.low_res``.

        I_l may lie in memory that R_0 is written to later: keep a copy of it, not itself.
        """
        found = low_res.retouch(self, thumbnail, self._folded)
        return super().retouch(thumbnail) if found is None else found

    def branches(self, features: list[Tensor]) -> tuple[Tensor | None, Tensor]:
        """Both branches of the LRL; see ``abpn_fast.low_res_training``."""
        found = low_res_training.branches(self, features)
        return super().branches(features) if found is None else found

    def _finest(
        self,
        layer: Tensor,
        image: Tensor,
        image_low: Tensor,
        strength: float,
        mask: Tensor | None,
        mask_threshold: float | None,
        out: Tensor | None,
    ) -> Tensor:
        assert isinstance(self.blend, PolynomialBlend)
        return ops.upsample_refine_blend(
            layer,
            image,
            image_low,
            *self._weights(0),
            self.blend.j,
            self.blend.k,
            strength=strength,
            # Autocast may have computed the mask in half precision.
            mask=None if mask_threshold is None or mask is None else mask.to(layer.dtype),
            mask_threshold=mask_threshold,
            out=out,
        )

    def _down(self, finer: Tensor, spare: Spare | None = None) -> Tensor:
        """I_{i+1} from I_i, in the dtype of the parameters; in the memory of ``spare`` where it has some."""
        shape = [*finer.shape[:2], *(-(-side // 2) for side in finer.shape[2:])]
        dtype = finer.dtype if finer.is_floating_point() else self.dtype
        target = None if spare is None else spare.take(finer, shape, dtype)
        if target is None and dtype not in (finer.dtype, torch.float32):
            target = torch.empty(shape, dtype=dtype, device=finer.device)
        return ops.pyramid_down(finer, filter=self.config.pyramid_filter, out=target)

    def _weights(self, level: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        module = self.refining_at(level)
        assert isinstance(module, RefiningModule)
        return module.weights


def accelerate(model: reference.ABPN) -> ABPN:
    """A drop-in that shares the modules, parameters and buffers of ``model``: training one trains the other."""
    if not isinstance(model, reference.ABPN):
        raise TypeError(f"model must be an abpn_fast.reference.ABPN, got {type(model).__name__}")
    with torch.device("meta"):
        fast = ABPN(model.config)
    for name, module in model.named_children():
        setattr(fast, name, module)
    # Not `train`, which would set the modules of `model`, some of which may be frozen.
    fast.training = model.training
    return fast


def _set_sensitivity(model: reference.ABPN, sensitivity: float) -> None:
    sensitivity = number("sensitivity", sensitivity)
    if not sensitivity:
        return
    if model.mask_branch is None:
        raise ValueError("sensitivity needs a model with mask_branch=True; leave it at 0")
    bias = model.mask_branch.head.bias
    assert bias is not None
    with torch.no_grad():
        bias += sensitivity


def _is_unobserved(module: torch.nn.Module, kind: type[torch.nn.Module]) -> bool:
    """Whether ``module`` computes as its ``kind`` does, with whatever weights, and has no hook."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module).forward is kind.forward and "forward" not in module.__dict__ and not any(hooks)
