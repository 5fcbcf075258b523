"""The head of a model: from what leaves the last block to logits, apart from the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from estimators.base import InputError
from extraction.models.blocks import watch
from extraction.models.load import LanguageModel


@dataclass(frozen=True, eq=False)
class Head:
    """What a model does after its last block.

    Attributes:
        before: modules between the last block and the output layer, such as the final norm, in order.
        output: the output layer.
        cap: logits are cap * tanh(logits / cap); None without.
        scale: logits are multiplied by it.
    """

    before: tuple[nn.Module, ...]
    output: nn.Module
    cap: float | None
    scale: float

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits (n, V) of states (n, width) that leave the last block."""
        weight = next(self.output.parameters())
        place = None if weight.is_meta else weight.device  # what is offloaded is moved to the states as it is needed
        states = states.to(device=place, dtype=weight.dtype if weight.is_floating_point() else None)
        for module in self.before:
            states = module(states)
        logits: Tensor = self.output(states) * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def find_head(model: LanguageModel) -> Head:
    """Find the modules after the last block by following a short run, and check them against the model's own logits.

    Raises:
        InputError: if the model has no output layer, or its logits are not those of norm, output layer and soft cap.
    """
    network: Any = model.model
    output = network.get_output_embeddings()
    if output is None:
        raise InputError(
            f"{model.name} ({network.config.model_type}) has no output head, so it predicts no next token; use "
            "sample-propagation."
        )
    passed: list[tuple[nn.Module, Tensor, Tensor]] = []
    left: list[Tensor] = []
    entered: list[Tensor] = []
    inside = {id(part) for block in model.blocks for part in block.modules()}
    others = [part for part in network.modules() if id(part) not in inside and not list(part.children())]

    def note(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(result, Tensor) and args[0].is_floating_point():
            passed.append((module, args[0].clone(), result.clone()))

    handles = [part.register_forward_hook(note) for part in others]
    handles.append(output.register_forward_pre_hook(lambda module, args: entered.append(args[0].clone())))
    try:
        with (
            torch.inference_mode(),
            watch(
                model.blocks, lambda point, state: left.append(state.clone()) if point == len(model.blocks) else None
            ),
        ):
            own = network(input_ids=torch.tensor([[1, 2, 3]], device=model.device), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    before: list[nn.Module] = []
    state = left[0]
    while not _same(state, entered[0]):
        step = next(((part, out) for part, into, out in passed if part not in before and _same(into, state)), None)
        if step is None:
            raise _unknown(model)
        before.append(step[0])
        state = step[1]
    config = network.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    for scale in _scales(config):
        head = Head(tuple(before), output, None if cap is None else float(cap), scale)
        with torch.inference_mode():
            ours = head.logits(left[0][0]).to(own.device)  # a model on several devices gives its own on the first
        # Rounding differs between one and three rows at a time; half precision has about three digits.
        near = 1e-4 if own.dtype in (torch.float32, torch.float64) else 0.05
        if ours.shape == own[0].shape and float((ours - own[0]).norm()) <= near * float(own[0].norm()):
            return head
    raise _unknown(model)


def _scales(config: Any) -> list[float]:
    """Return the factors a family may put on its logits, as its configuration names them."""
    scale, divisor = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    return [1.0, *([float(scale)] if scale else []), *([1 / float(divisor)] if divisor else [])]


def _unknown(model: LanguageModel) -> InputError:
    return InputError(
        f"The logits of {model.name} ({model.model.config.model_type}) are not those of a norm and a linear output "
        "layer, so no lens can read its states; use sample-propagation."
    )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())  # they may lie on different devices
