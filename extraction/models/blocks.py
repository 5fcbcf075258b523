"""The blocks of a causal language model, and what passes between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from estimators.base import InputError


def decoder_of(model: nn.Module) -> Any:
    """Return the part of a transformers model that turns token ids into states: without head, without images."""
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    if not _holds_list(decoder):  # what is named decoder is the output layer, as in ModernBERT's
        return model.base_model
    if decoder is model:  # transformers does not know which of its parts it is, as in Llama 4's
        return next((part for part in model.children() if hasattr(part, "get_decoder") and _holds_list(part)), model)
    return decoder


def _holds_list(model: Any) -> bool:
    return any(isinstance(part, nn.ModuleList) for part in model.modules())


def find_blocks(model: nn.Module, name: str) -> list[nn.Module]:
    """Return the blocks of a transformers model in the order in which the residual stream passes them.

    They are the outermost module list of the decoder with as many members as the configuration counts layers; where
    layers are counted otherwise (two sublayers a block), the list of what transformers records hidden states of.

    Raises:
        InputError: if there is no such list.
    """
    config: Any = model.config
    decoder = decoder_of(model)
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    lists = sorted(
        ((path.count("."), module) for path, module in decoder.named_modules() if isinstance(module, nn.ModuleList)),
        key=lambda found: found[0],
    )
    recorded = _recorded(decoder)
    for chosen in (
        [blocks for _, blocks in lists if 0 < len(blocks) == layers],
        [blocks for _, blocks in lists if len(blocks) and {type(block).__name__ for block in blocks} <= recorded],
    ):
        if chosen:
            return list(chosen[0])
    raise InputError(
        f"{name} ({config.model_type}) holds no list of {layers} blocks, so its states cannot be read; "
        "give a decoder-only model whose layers are a torch ModuleList."
    )


def _recorded(decoder: Any) -> set[str]:
    """Names of the classes whose outputs transformers takes for hidden states."""
    record = (getattr(decoder, "can_record_outputs", None) or {}).get("hidden_states", [])
    targets = [getattr(one, "target_class", one) for one in (record if isinstance(record, list) else [record])]
    return {one if isinstance(one, str) else one.__name__ for one in targets if one is not None}


def used_blocks(model: nn.Module, blocks: list[nn.Module], device: torch.device) -> list[nn.Module]:
    """Return the blocks that text passes: cross-attention to images is skipped where there are none."""
    ran: set[int] = set()
    handles = [block.register_forward_pre_hook(lambda block, args: ran.add(id(block))) for block in blocks]
    try:
        with torch.inference_mode():
            run_decoder(model, torch.tensor([[1, 2]], device=device))
    except Exception:  # `check_stream` says what is wrong
        return blocks
    finally:
        for handle in handles:
            handle.remove()
    return [block for block in blocks if id(block) in ran]


@contextmanager
def watch(blocks: list[nn.Module], receive: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Hand every state to `receive` while the model runs inside the context.

    `receive(0, h)` gets what enters the first block and `receive(l + 1, h)` what leaves block l, each of shape
    (batch, tokens, width). What enters block l > 0 is what leaves block l - 1; `check_stream` makes sure of it.
    """

    def leaving(point: int) -> Callable[..., None]:
        return lambda module, args, kwargs, output: receive(point, _state(output))

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        receive(0, _input(args, kwargs))

    handles = [blocks[0].register_forward_pre_hook(entering, with_kwargs=True)]
    handles += [block.register_forward_hook(leaving(i + 1), with_kwargs=True) for i, block in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run_decoder(model: nn.Module, ids: Tensor, *, head: bool = False) -> Any:
    """Run `ids` (batch, tokens) through the model without its head (with it if `head`), keeping no cache."""
    target: Any = model if head else decoder_of(model)
    return target(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)


def check_stream(model: nn.Module, blocks: list[nn.Module], device: torch.device, name: str) -> int:
    """Run three tokens through the model to make sure that its states mean what this package takes them for.

    Returns:
        The width of the residual stream.

    Raises:
        InputError: if the model cannot run, if the states are not one vector per token or not finite, if the blocks
            do not pass one stream on from each to the next, or if a token changes the states of those before it.
    """
    entered: list[Tensor] = []
    left: list[Tensor] = []
    handles = []
    for block in blocks:
        handles.append(
            block.register_forward_pre_hook(
                lambda module, args, kwargs: entered.append(_input(args, kwargs).cpu().clone()), with_kwargs=True
            )
        )
        handles.append(
            block.register_forward_hook(lambda module, args, output: left.append(_state(output).cpu().clone()))
        )
    try:
        with torch.inference_mode():
            run_decoder(model, torch.tensor([[1, 2, 3], [1, 2, 4]], device=device))
    except Exception as error:
        raise InputError(
            f"{name} was loaded, but failed on a first run of three tokens ({type(error).__name__}: {error}); try "
            "another dtype, attention or quantization."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    what = f"{name} ({model.config.model_type})"  # type: ignore[union-attr]
    if len(left) > len(blocks):
        raise InputError(
            f"{what} runs its {len(blocks)} blocks {len(left)} times for one token, so a block has several entering "
            "and leaving states; such models cannot be measured."
        )
    if len(left) != len(blocks) or any(state.dim() != 3 or state.shape[:2] != (2, 3) for state in left):
        raise InputError(
            f"The blocks of {what} do not each pass one vector per token, so they have no entering and leaving "
            "states; such models cannot be measured."
        )
    if not all(bool(torch.isfinite(state).all()) for state in left):
        raise InputError(_not_finite(model, what))
    if any(not torch.equal(a, b) for a, b in zip(left[:-1], entered[1:], strict=True)):
        raise InputError(
            f"{what} changes its states between blocks, so what leaves a block is not what enters the next; such "
            "models cannot be measured."
        )
    before = left[-1][:, :2].float()
    # In half precision, and where weights are quantised, rounding may depend on what else is in the batch.
    tolerance = 1e-5 if left[-1].dtype in (torch.float32, torch.float64) else 0.05
    if float((before[0] - before[1]).norm() / before[0].norm()) > tolerance:
        raise InputError(
            f"{what} reads text in both directions (a later token changes earlier states); information emergence "
            "needs a causal, decoder-only model."
        )
    return left[0].shape[-1]


def check_beginnings(model: nn.Module, blocks: list[nn.Module], ids: Tensor, name: str) -> None:
    """Make sure that a window's beginning run alone leaves the states that it leaves in the whole window.

    Sparse attention that picks the best-scored `index_topk` tokens breaks ties by the length of the run; below that
    length it picks all.

    Args:
        model: the transformers model.
        blocks: its blocks.
        ids: (n, T) a few windows, with what stands before them.
        name: of the model, for messages.

    Raises:
        InputError: if the states depend on what comes after.
    """
    most = getattr(model.config.get_text_config(), "index_topk", None)  # type: ignore[union-attr, operator]
    if not isinstance(most, int) or ids.shape[1] <= most:
        return
    left: list[Tensor] = []
    with (
        torch.inference_mode(),
        watch(blocks, lambda point, state: left.append(state.clone()) if point == len(blocks) else None),
    ):
        run_decoder(model, ids)
        run_decoder(model, ids[:, :-1])
    whole, beginning = left[0][:, :-1].float(), left[1].float()
    tolerance = 1e-4 if left[0].dtype in (torch.float32, torch.float64) else 0.05
    if float((whole - beginning).abs().max()) > tolerance * float(whole.abs().max()):
        raise InputError(
            f"{name} attends to the {most} best-scored tokens and breaks ties among them by the length of the run, so "
            f"a token's state depends on how many follow it; take windows of at most {most} tokens, the tokens before "
            "them included."
        )


def _not_finite(model: nn.Module, what: str) -> str:
    for name, weight in model.named_parameters():
        if weight.device.type != "meta" and weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            return (
                f"The weights of {what} hold NaN or infinity, first in {name}: the checkpoint is damaged; fetch it "
                "again."
            )
    return (
        f"The states of {what} overflow to NaN or infinity though its weights are finite; load it as bfloat16 or "
        "float32."
    )


def _state(output: Any) -> Tensor:
    state: Tensor = output[0] if isinstance(output, tuple | list) else output
    return state


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    state: Tensor = args[0] if args else kwargs["hidden_states"]
    return state
