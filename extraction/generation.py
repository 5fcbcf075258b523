"""Answers of open models to prompts, in the same table as those that come through an API."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

from estimators.base import InputError, Progress
from extraction.models import LanguageModel
from extraction.tables import RESPONSES


def generate_answers(
    model: LanguageModel,
    prompts: pd.DataFrame,
    *,
    samples: int = 1,
    max_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 32,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Let a model answer prompts; the same prompts, batch and seed give the same answers.

    A prompt is put in the chat template of the tokenizer where there is one, as a server does.

    Args:
        model: from `load_model`.
        prompts: columns ``prompt_id`` and ``prompt``, as `extraction.prompts` gives them.
        samples: answers to each prompt.
        max_tokens: longest answer in tokens.
        temperature: of the sampling; 0 takes the likeliest token always.
        seed: of the sampling.
        batch: answers made at a time.
        progress: told how many answers are there.

    Returns:
        One row per answer with the columns of `RESPONSES`, ordered by prompt and sample.

    Raises:
        InputError: if a column is missing, an option makes no sense, or a prompt leaves no room in the context.
    """
    missing = [name for name in ("prompt_id", "prompt") if name not in prompts.columns]
    if missing:
        raise InputError(
            f"Prompts need the columns prompt_id and prompt; {', '.join(missing)} missing, found "
            f"{', '.join(map(str, prompts.columns)) or 'none'}."
        )
    if samples < 1 or max_tokens < 1 or batch < 1 or temperature < 0:
        raise InputError(
            "samples, max_tokens and batch are at least 1 and temperature at least 0; got "
            f"{samples}, {max_tokens}, {batch} and {temperature}."
        )
    ids = [_encode(model, str(prompt)) for prompt in prompts["prompt"]]
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
    for start in range(0, len(jobs), batch):
        part = by_length[start : start + batch]
        began, created = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        answers = _generate(model, [ids[index] for index, _ in part], max_tokens, temperature, (seed, start))
        seconds = (time.perf_counter() - began) / len(part)
        for (index, sample), (answer, stopped) in zip(part, answers, strict=True):
            prompt = prompts.iloc[index]
            rows.append(
                {
                    "job": (index, sample),
                    "model": model.name,
                    "prompt_id": str(prompt["prompt_id"]),
                    "sample": sample,
                    "prompt": str(prompt["prompt"]),
                    "text": model.tokenizer.decode(answer, skip_special_tokens=True),
                    "finish_reason": "stop" if stopped else "length",
                    "prompt_tokens": len(ids[index]),
                    "completion_tokens": len(answer),
                    "latency_s": seconds,
                    "created": created,
                }
            )
        if progress is not None:
            progress(start + len(part), len(jobs))
    rows.sort(key=lambda row: row.pop("job"))
    return RESPONSES.conform(pd.DataFrame(rows, columns=[*RESPONSES.columns]))


def _encode(model: LanguageModel, prompt: str) -> list[int]:
    if model.tokenizer.chat_template:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return list(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return list(model.tokenizer(prompt, verbose=False)["input_ids"])


def _generate(
    model: LanguageModel, prompts: list[list[int]], max_tokens: int, temperature: float, seed: tuple[int, int]
) -> list[tuple[list[int], bool]]:
    """Answers as token ids without the token that ends them, and whether the model ended them itself."""
    end = _end_tokens(model)
    fill = min(end, default=0)
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), fill)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, so that answers begin at one column
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    options: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(int.from_bytes(hashlib.sha256(repr(seed).encode()).digest()[:8]) >> 1)
        output = model.model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_tokens,
            eos_token_id=sorted(end) or None,
            pad_token_id=fill,
            **options,
        )
    answers = []
    for row in output[:, longest:].tolist():
        stop = next((place for place, token in enumerate(row) if token in end), None)
        answers.append((row[:stop], stop is not None))
    return answers


def _end_tokens(model: LanguageModel) -> set[int]:
    given = model.model.generation_config.eos_token_id
    ends = {given} if isinstance(given, int) else set(given or ())
    if model.tokenizer.eos_token_id is not None:
        ends.add(model.tokenizer.eos_token_id)
    return ends
