"""How a small reader model sees a text: information, emergence and likelihood of answers read through it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from estimators.base import InputError
from estimators.positions import WindowEmergence
from extraction import LanguageModel, Projection, Statistics, Windows, extract, load_model
from extraction.answers.prompt_texts import OPENINGS, QUESTIONS
from extraction.models.batches import rows_in_memory
from proxy.features.joining import combine
from proxy.measurement.blocks import emergence_of_block, queries_of
from proxy.measurement.prefix import with_prefix

TOKENS = 8  # per window, as the paper's natural text
WINDOWS = 800
RESOLUTIONS = (0.06, 0.12, 0.18, 0.25, 0.5)
DEFAULT_READERS = ("gpt2-2m",)
NAMES = ("macro", "micro", "ie", "ie_spread")


def load_reader(name: str, display_name: str | None = None) -> LanguageModel:
    """Load a model to read answers, with its neutral first token, under the name that its features get."""
    return replace(with_prefix(load_model(name)), name=display_name or name)


class Reader:
    """A model that reads answers, with one fixed scale for all texts.

    Its states are normalised by the statistics of a text that ships with this package, never by those of the answers,
    so that the answers of two models compare, also when they are read in different runs.

    Args:
        model: the reader.
        seed: of projection and noise.
    """

    def __init__(self, model: LanguageModel, seed: int = 0) -> None:
        self.model = model
        self.seed = seed
        reference = answer_windows(model, [[text] for text in (*OPENINGS, *QUESTIONS)], count=WINDOWS, seed=0)
        with extract(model, reference, projection=Projection(seed=seed), likelihoods=False) as states:
            self.statistics: Statistics = states.statistics

    def read(
        self,
        texts: Sequence[Sequence[str]],
        *,
        resolutions: Sequence[float] = RESOLUTIONS,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, float]:
        """Numbers for the answers of one model, in bits; every prompt has the same share of the windows.

        Args:
            texts: the samples of each prompt.
            resolutions: noise levels, see `estimators.propagation`.
            progress: called with the number of answers read so far.

        Returns:
            ``macro_R``, ``micro_R``, ``ie_R`` and ``ie_spread_R`` of the last block at the last position of a window,
            per resolution R, and ``nll``, the mean surprise of a token of the answers.

        Raises:
            InputError: if no answer is long enough for a window, or two resolutions have the same first six digits.
        """
        windows = answer_windows(self.model, texts, count=WINDOWS, seed=self.seed)
        found: dict[str, float] = {}
        for one in self.emergence(windows, resolutions):
            numbers = (one.value.macro_bits, one.value.micro_bits, one.value.ie_bits, one.value.sample_std)
            named = {f"{name}_{one.resolution:g}": number for name, number in zip(NAMES, numbers, strict=True)}
            found = combine(found, named)
        return found | {"nll": self.nll_bits(texts, progress=progress)}

    def emergence(self, windows: Windows, resolutions: Sequence[float]) -> list[WindowEmergence]:
        """Information emergence of windows in the last block at their last position, one value per resolution."""
        with extract(self.model, windows, statistics=self.statistics, likelihoods=False) as states:
            (values,) = emergence_of_block(
                states,
                windows,
                states.blocks - 1,
                queries_of(windows, None, self.seed),
                resolutions=resolutions,
                seed=self.seed,
                device=self.model.device,
                positions=[states.positions],
            )
        return values

    def _most(self, length: int, batch_tokens: int) -> int:
        """Texts of `length` tokens that are read at once: what memory takes is measured at few lengths."""
        near = min(2 ** (length - 1).bit_length(), self.model.context)
        return min(batch_tokens // length, rows_in_memory(self.model, near, head=True))

    def nll_bits(
        self,
        texts: Sequence[Sequence[str]],
        *,
        batch_tokens: int = 8192,
        progress: Callable[[int], None] | None = None,
    ) -> float:
        """Mean surprise in bits of a token of the answers, each read from its start, up to the reader's context.

        The mean over tokens is taken per prompt, then over prompts.
        """
        rows = [(place, _encode(self.model, text)) for place, samples in enumerate(texts) for text in samples]
        rows = sorted(((place, ids) for place, ids in rows if len(ids) > 1), key=lambda row: len(row[1]))
        totals = np.zeros((len(texts), 2))
        start = 0
        while start < len(rows):
            end = start + 1
            while end < len(rows) and end - start < self._most(len(rows[end][1]), batch_tokens):
                end += 1
            part = rows[start:end]
            width = max(len(ids) for _, ids in part)
            ids = torch.zeros(len(part), width, dtype=torch.long)
            known = torch.zeros(len(part), width, dtype=torch.bool)
            for row, (_, tokens) in enumerate(part):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                known[row, len(self.model.prefix) : len(tokens)] = True
            known[:, 0] = False
            device = self.model.device
            with torch.inference_mode():
                logits = self.model.model(input_ids=ids.to(device), use_cache=False).logits[:, :-1].float()
                losses = torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), ids[:, 1:].to(device), reduction="none"
                ).cpu()
            kept = known[:, 1:]
            for row, (place, _) in enumerate(part):
                totals[place] += float(losses[row][kept[row]].sum()) / math.log(2), int(kept[row].sum())
            start = end
            if progress is not None:
                progress(end)
        read = totals[:, 1] > 0
        return float((totals[read, 0] / totals[read, 1]).mean())


def answer_windows(
    model: LanguageModel, texts: Sequence[Sequence[str]], *, count: int = WINDOWS, seed: int = 0, tokens: int = TOKENS
) -> Windows:
    """Sample exactly `count` windows of `tokens` tokens, as many from each prompt, so that long answers don't dominate.

    Within a prompt, all places of its samples are taken once before any is taken again. The number is fixed because
    information over more windows is larger by itself.

    Args:
        model: whose tokenizer is used.
        texts: the samples of each prompt.
        count: windows to take.
        seed: of the sample.
        tokens: tokens of a window.

    Returns:
        The distinct windows, how often each was sampled, and as `documents` the place in `texts` it (first) came from.

    Raises:
        InputError: if no text has that many tokens.
    """
    rng = np.random.default_rng([seed, 2])
    pools, owners = [], []
    for owner, samples in enumerate(texts):
        encoded = [np.array(_encode(model, text, whole=False), dtype=np.int64) for text in samples]
        places = [np.lib.stride_tricks.sliding_window_view(ids, tokens) for ids in encoded if len(ids) >= tokens]
        if places:
            pools.append(np.concatenate(places))
            owners.append(owner)
    if not pools:
        raise InputError(
            f"No answer has {tokens} tokens of the reader {model.name}, so it cannot read them; collect longer answers."
        )
    shares = np.full(len(pools), count // len(pools))
    shares[rng.permutation(len(pools))[: count - shares.sum()]] += 1
    sampled = []
    for pool, share in zip(pools, shares, strict=True):
        rounds = [rng.permutation(len(pool)) for _ in range(-(-share // len(pool)))]
        sampled.append(pool[np.concatenate(rounds)[:share]] if rounds else pool[:0])
    owner_of = np.repeat(owners, shares)
    distinct, first, weights = np.unique(np.concatenate(sampled), axis=0, return_index=True, return_counts=True)
    order = rng.permutation(len(distinct))
    return Windows(
        "answers",
        "text",
        distinct[order],
        weights[order].astype(np.float64),
        prefix=model.prefix,
        documents=owner_of[first][order],
    )


def read_features(
    answers: pd.DataFrame,
    reader: Reader,
    resolutions: Sequence[float],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """`Reader.read` on the rows of one model in a responses table."""
    texts = answers["text"].dropna().astype(str)
    by_prompt = answers.loc[texts.index, "prompt_id"]
    grouped = [list(group) for _, group in texts.groupby(by_prompt, sort=True)]
    return reader.read(grouped, resolutions=resolutions, progress=progress)


def _encode(model: LanguageModel, text: str, *, whole: bool = True) -> list[int]:
    """Token ids, cut to the reader's context; with the tokenizer's prefix if `whole`."""
    ids: list[int] = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return [*model.prefix, *ids][: model.context] if whole else ids
