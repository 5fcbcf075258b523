"""Answers of open models to prompts, in the same table as those that come through an API."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from datetime import UTC, datetime
from typing import Any, Literal

import jinja2
import pandas as pd
import torch
from torch import Tensor

from estimators.base import InputError, Progress
from extraction.answers.conversations import messages_of, prompt_text
from extraction.answers.prompt_sets import check_prompts
from extraction.answers.sampling import Sampling
from extraction.models.batches import rows_in_memory
from extraction.models.load import LanguageModel
from extraction.tables import RESPONSES


def generate_answers(
    model: LanguageModel,
    prompts: pd.DataFrame,
    *,
    sampling: Sampling | None = None,
    samples: int = 1,
    batch: int = 32,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Let a model answer prompts; the same prompts, batch and seed give the same answers.

    A prompt is put in the chat template of the tokenizer where there is one, as a server does, a conversation with
    all its messages; without a template, the messages' text is the prompt, after what the tokenizer adds to any text.
    No neutral first token stands before it, since none does where a model answers behind an API.

    Args:
        model: from `load_model`.
        prompts: columns ``prompt_id`` and ``prompt``, as `extraction.answers.prompt_sets` gives them.
        sampling: length, temperature (0 takes the likeliest token always), seed, and how many alternatives per token to
            record with their log probability (natural, at temperature 1); system prompts and stops are not supported.
        samples: answers to each prompt.
        batch: answers made at a time.
        progress: called with how many answers there are.

    Returns:
        One row per answer with the columns of `RESPONSES` and ``sampling``, ordered by prompt and sample.

    Raises:
        InputError: if a column is missing, an option makes no sense, a prompt is not text or leaves no room in the
            context.

    Example:
        >>> from extraction import Sampling, load_model
        >>> asked = pd.DataFrame({"prompt_id": ["0"], "prompt": ["The old house stood"]})
        >>> answers = generate_answers(load_model("gpt2-30k"), asked, sampling=Sampling(max_tokens=4))
        >>> answers["completion_tokens"].tolist()
        [4]
    """
    missing = [name for name in ("prompt_id", "prompt") if name not in prompts.columns]
    if missing:
        raise InputError(
            f"Prompts need the columns prompt_id and prompt; {', '.join(missing)} missing, found "
            f"{', '.join(map(str, prompts.columns)) or 'none'}."
        )
    sampling = sampling or Sampling()
    if samples < 1 or batch < 1:
        raise InputError(f"samples and batch are at least 1; got {samples} and {batch}.")
    if sampling.temperature is None or sampling.system or sampling.stop:
        raise InputError(
            "A model in this process needs a temperature, and takes neither a system prompt nor stops; put a system "
            "message into the prompts, as conversations."
        )
    max_tokens, logprobs = sampling.max_tokens, sampling.logprobs
    prompts = prompts.assign(prompt=check_prompts(prompts)["prompt"].to_numpy())
    ids = [_encode(model, prompt) for prompt in prompts["prompt"]]
    for name, row in zip(prompts["prompt_id"], ids, strict=True):
        if not row:
            raise InputError(f"Prompt {name} is empty; every prompt needs at least one token.")
        if len(row) + max_tokens > model.context:
            raise InputError(
                f"Prompt {name} has {len(row)} tokens; with {max_tokens} of answer it exceeds the context of "
                f"{model.name}, {model.context}."
            )
    jobs = [(index, sample) for index in range(len(ids)) for sample in range(samples)]
    by_length = sorted(jobs, key=lambda job: (len(ids[job[0]]), job))  # little padding
    rows: list[dict[str, Any]] = []
    lengths = [len(ids[index]) for index, _ in by_length]
    batch = min(batch, rows_in_memory(model, max(map(len, ids), default=1)))
    edges = {*range(0, len(jobs), batch), len(jobs)}
    together = _together(model) if batch > 1 and len(jobs) > 1 else "padded"
    if together != "padded":
        apart = together == "alone"
        edges |= {place for place in range(1, len(jobs)) if apart or lengths[place] != lengths[place - 1]}
    for start, stop in itertools.pairwise(sorted(edges)):
        part = by_length[start:stop]
        began, created = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        recorder = _Recorder(logprobs) if logprobs else None
        answers = _generate(model, [ids[index] for index, _ in part], sampling, start, recorder)
        seconds = (time.perf_counter() - began) / len(part)
        for place, ((index, sample), (answer, stopped)) in enumerate(zip(part, answers, strict=True)):
            prompt = prompts.iloc[index]
            rows.append(
                {
                    "job": (index, sample),
                    "model": model.name,
                    "prompt_id": str(prompt["prompt_id"]),
                    "sample": sample,
                    "prompt": prompt_text(prompt["prompt"]),
                    "text": model.tokenizer.decode(answer, skip_special_tokens=True),
                    "finish_reason": "stop" if stopped else "length",
                    "prompt_tokens": len(ids[index]),
                    "completion_tokens": len(answer),
                    "logprobs": recorder and json.dumps(recorder.entries(place, answer, model.tokenizer)),
                    "latency_s": seconds,
                    "created": created,
                    "sampling": sampling.settings,
                }
            )
        if progress is not None:
            progress(start + len(part), len(jobs))
    rows.sort(key=lambda row: row.pop("job"))
    return RESPONSES.conform(pd.DataFrame(rows, columns=[*RESPONSES.columns, "sampling"]))


Together = Literal["padded", "equal", "alone"]


def _together(model: LanguageModel) -> Together:
    """Find out which prompts a model answers in one batch as it answers them alone.

    Some read what a prompt is padded with, knowing no mask; some (RWKV with its cache) mix up the rows of a batch.
    """
    logits_by = {
        how: _first_scores(model, rows)
        for how, rows in {
            "alone": [[1, 2]],
            "equal": [[1, 2], [3, 4]],
            "padded": [[1, 2], [5, 4, 3, 2, 1]],
        }.items()
    }
    # In half precision rounding may depend on what else is in the batch.
    tolerance = 1e-3 if model.model.dtype == torch.float32 else 0.05
    for how in ("padded", "equal"):
        distance = (logits_by[how] - logits_by["alone"]).abs().sum(-1) / 2  # total variation, at each step
        same = logits_by[how].argmax(-1) == logits_by["alone"].argmax(-1)
        steps = 1 + int(same[:-1].cumprod(0).sum())  # up to the first after which the answers are different texts
        if float(distance[:steps].max()) <= tolerance:
            return how
    return "alone"


def _first_scores(model: LanguageModel, prompts: list[list[int]]) -> Tensor:
    """Probabilities (3, V) of the next three tokens after the first of some prompts, answered together."""
    ids, mask = _padded(prompts, 0)
    with torch.inference_mode():
        found = model.model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=3, do_sample=False,
            eos_token_id=None, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    return torch.stack([torch.softmax(step[0].float(), -1) for step in found.logits])


def _padded(prompts: list[list[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Ids and mask of prompts, padded on the left, so that answers begin at one column."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), fill)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _encode(model: LanguageModel, prompt: str) -> list[int]:
    if model.tokenizer.chat_template:
        messages = messages_of(prompt) or [{"role": "user", "content": prompt}]
        try:
            text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError as error:  # as of templates without a system role
            roles = ", ".join(message["role"] for message in messages)
            raise InputError(f"The chat template of {model.name} takes no messages of {roles}: {error}.") from None
        return list(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return list(model.tokenizer(prompt_text(prompt), verbose=False)["input_ids"])


def _generate(
    model: LanguageModel,
    prompts: list[list[int]],
    sampling: Sampling,
    start: int,
    recorder: _Recorder | None,
) -> list[tuple[list[int], bool]]:
    """Generate a batch of answers, the first of which is number `start`.

    Returns:
        Their token ids without the token that ends them, and whether the model ended them itself.
    """
    end = _end_tokens(model)
    fill = min(end, default=0)
    ids, mask = _padded(prompts, fill)
    longest = ids.shape[1]
    options: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        options = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(hashlib.sha256(repr((sampling.seed, start)).encode()).digest()[:8]) >> 1)
        output = model.model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=sampling.max_tokens,
            eos_token_id=sorted(end) or None,
            pad_token_id=fill,
            logits_processor=[recorder] if recorder else None,
            **options,
        )
        if recorder:
            recorder.chosen(output[:, -1])
    answers = []
    for row in output[:, longest:].tolist():
        stop = next((place for place, token in enumerate(row) if token in end), None)
        answers.append((row[:stop], stop is not None))
    return answers


class _Recorder:
    """A logits processor that changes nothing, but notes how likely each token was and which others were likely."""

    def __init__(self, alternatives: int) -> None:
        self.alternatives = alternatives
        self.steps: list[
            tuple[Tensor, Tensor, Tensor]
        ] = []  # log probability of the chosen, of the likeliest, their ids
        self._last: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.chosen(input_ids[:, -1])
        self._last = torch.log_softmax(scores.float(), dim=-1)
        return scores

    def chosen(self, tokens: Tensor) -> None:
        """Note the tokens that were taken after the last call."""
        if self._last is not None:
            values, ids = self._last.topk(min(self.alternatives, self._last.shape[-1]))
            self.steps.append((self._last.gather(1, tokens[:, None])[:, 0].cpu(), values.cpu(), ids.cpu()))
            self._last = None

    def entries(self, row: int, answer: list[int], tokenizer: Any) -> list[dict[str, Any]]:
        """What is known of the tokens of one answer, as in the responses table."""
        found = []
        for token, (said, values, ids) in zip(answer, self.steps, strict=False):  # the batch may go on for longer
            top: dict[str, float] = {}
            for other, value in zip(ids[row].tolist(), values[row].tolist(), strict=True):
                top.setdefault(tokenizer.decode([other]), value)  # parts of characters look alike: the likeliest stays
            found.append({"token": tokenizer.decode([token]), "logprob": float(said[row]), "top": top})
        return found


def _end_tokens(model: LanguageModel) -> set[int]:
    given = model.model.generation_config.eos_token_id
    ends = {given} if isinstance(given, int) else set(given or ())
    if model.tokenizer.eos_token_id is not None:
        ends.add(model.tokenizer.eos_token_id)
    return ends
