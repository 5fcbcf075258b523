"""The neutral first token: what stands before every window and every lone token.

Many models spend the state of their first position on something else than its token (an attention sink), so that a
token run alone says nothing. A tokenizer that puts a token in front by itself has settled which; of the others' special
tokens, and none, the one is taken after which calibrated lone tokens predict the next token best.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators.base import InputError
from estimators.contracts.cache import cache_folder
from estimators.contracts.files import replacing
from estimators.folds import assign_folds
from estimators.predictive import (
    TEMPERATURES,
    calibrate,
    gain_bits,
    token_log_probabilities,
    unigram,
)
from extraction import LanguageModel, Windows
from extraction import windows as make_windows
from extraction.corpora.spec import PYTHON_DOCS
from extraction.models.batches import rows_at_once

AUTO, NONE = "auto", "none"
CANDIDATES = 32  # special tokens that are tried at most; some vocabularies reserve hundreds
SCREENED, FINALISTS, LONE = 96, 4, 600  # lone tokens that all candidates are tried on, how many remain, and on how many
LOGIT_BYTES = 2**25  # of float32 logits held at a time
VERSION = 1  # of what is kept; another one is searched for again


@dataclass(frozen=True, slots=True)
class NeutralPrefix:
    """What stands before every window and lone token of a model.

    Attributes:
        ids: token ids; empty for nothing.
        text: as the tokenizer writes it; empty for nothing.
        gains: bits that lone tokens tell about the next one after each of the candidates that reached the last round,
            by text; empty where the tokenizer decides, or nothing was searched.
    """

    ids: tuple[int, ...]
    text: str
    gains: dict[str, float]

    def __str__(self) -> str:
        """One sentence for a person.

        >>> str(NeutralPrefix((0,), "<s>", {"<s>": 0.8, "": 0.1}))
        "neutral first token '<s>': lone tokens tell 0.80 bits about the next one (0.10 without)"
        """
        if not self.ids:
            return "no neutral first token" + (": lone tokens tell most without one" if self.gains else "")
        if self.text not in self.gains:
            return f"neutral first token {self.text!r}"
        without = f" ({self.gains['']:.2f} without)" if "" in self.gains else ""
        gain = f"{self.gains[self.text]:.2f} bits about the next one{without}"
        return f"neutral first token {self.text!r}: lone tokens tell {gain}"


def with_prefix(model: LanguageModel, choice: str = AUTO) -> LanguageModel:
    """Return the model with the prefix that its windows, lone tokens and outputs are measured after.

    Args:
        model: as loaded, with what its tokenizer adds by itself.
        choice: ``auto``, see `neutral_prefix`; ``none``; or a token of the model.

    Raises:
        InputError: if the model has no such token.

    >>> from extraction import load_model
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with_prefix(model, "<|endoftext|>").prefix, with_prefix(model, "none").prefix
    ((0,), ())
    """
    return replace(model, prefix=chosen_prefix(model, choice).ids)


def chosen_prefix(model: LanguageModel, choice: str = AUTO) -> NeutralPrefix:
    """Return what `choice` stands for: ``auto``, ``none`` or a token of the model.

    Raises:
        InputError: if the model has no such token.
    """
    if choice == AUTO:
        return neutral_prefix(model)
    if choice == NONE:
        return NeutralPrefix((), "", {})
    tokenizer = model.tokenizer
    known = tokenizer.get_vocab().get(choice)
    ids = [known] if known is not None else tokenizer(choice, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) != 1 or ids[0] >= model.vocabulary or (known is None and ids[0] == tokenizer.unk_token_id):
        special = ", ".join(tokenizer.all_special_tokens[:CANDIDATES]) or "there are none"
        raise InputError(
            f"The prefix {choice!r} is not a single token of {model.name}; give auto, none or one of its tokens. Its "
            f"special tokens: {special}."
        )
    return NeutralPrefix((int(ids[0]),), tokenizer.decode(ids), {})


def neutral_prefix(model: LanguageModel, windows: Windows | None = None) -> NeutralPrefix:
    """Find the neutral first token of a model.

    It is what the tokenizer adds by itself; else, of its special tokens and none, the one after which calibrated lone
    tokens tell most about the next token. Unless `windows` are given, it is found on the reference texts in every
    Python, so that it is the model's own whatever is measured next, and kept in the user's cache folder.

    Args:
        model: as loaded; its weights are run on lone tokens only.
        windows: text to find it on; the windows that a measurement with seed 0 is read on are left out.

    Raises:
        InputError: if the windows are too few or do not say what follows.

    >>> from extraction import load_model
    >>> neutral_prefix(load_model("gpt2-30k", device="cpu")).text in ("", "<|endoftext|>")
    True
    """
    tokenizer = model.tokenizer
    if model.prefix:
        return NeutralPrefix(model.prefix, tokenizer.decode(list(model.prefix)), {})
    candidates = _candidates(model)
    if len(candidates) == 1 or model.model.get_output_embeddings() is None:
        return NeutralPrefix((), "", {})
    kept = None if windows is not None else _cache_file(model)
    if kept is not None and (found := _read(kept, candidates)) is not None:
        return found
    if windows is None:
        windows = make_windows(PYTHON_DOCS, tokenizer, prefix=())
    found = _search(model, windows, candidates)
    if kept is not None:
        _write(kept, found)
    return found


def _candidates(model: LanguageModel) -> dict[str, tuple[int, ...]]:
    """None and the special tokens, by text."""
    tokenizer = model.tokenizer
    special = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    known = [(str(text), (int(token),)) for text, token in special if 0 <= token < model.vocabulary]
    return {"": (), **dict(known[:CANDIDATES])}


@dataclass(frozen=True, eq=False)
class Pairs:
    """Lone tokens and their next tokens.

    Attributes:
        alone: (n,) distinct ids, the most frequent first.
        row: (m,) place of a pair's first token in `alone`.
        token: (m,) its second token.
        weights: (m,) how often the pair occurs; they sum to 1.
        log_u: (V,) natural logarithm of each token's unigram probability.
    """

    alone: Tensor
    row: Tensor
    token: Tensor
    weights: Tensor
    log_u: Tensor

    def most_frequent(self, count: int) -> Pairs:
        """Return the pairs of the `count` most frequent lone tokens."""
        mine = self.row < count
        weights = self.weights[mine]
        return Pairs(self.alone[:count], self.row[mine], self.token[mine], weights / weights.sum(), self.log_u)


def next_token_pairs(windows: Windows, vocabulary: int) -> Pairs:
    """Return tokens with their next tokens, from windows that no measurement reads.

    Raises:
        InputError: if the windows are too few or do not say what follows.
    """
    if windows.next_tokens is None:
        raise InputError(f"The windows of {windows.corpus} do not say which token follows; make them by `windows`.")
    known = np.flatnonzero(windows.next_tokens >= 0)
    documents = None if windows.documents is None else windows.documents[known]
    fold, _ = assign_folds(len(known), documents, seed=0)
    tokens = np.column_stack([windows.tokens[known], windows.next_tokens[known]])  # (N, T + 1)
    fit, counted = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    log_u = unigram(tokens[fit, 1:], windows.weights[known[fit]], vocabulary).float()  # (V,)
    weights = np.repeat(windows.weights[known[counted]], tokens.shape[1] - 1)
    tokens = tokens[counted]
    both = np.stack([tokens[:, :-1].ravel(), tokens[:, 1:].ravel()], axis=1)
    pairs, of = np.unique(both, axis=0, return_inverse=True)
    counts = np.bincount(of.ravel(), weights=weights)
    alone, row = np.unique(pairs[:, 0], return_inverse=True)
    order = np.argsort(-np.bincount(row, weights=counts), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    token = torch.from_numpy(pairs[:, 1])
    return Pairs(
        torch.from_numpy(alone[order]),
        torch.from_numpy(place[row]),
        token,
        torch.from_numpy(counts / counts.sum()),
        log_u,
    )


def _search(model: LanguageModel, windows: Windows, candidates: dict[str, tuple[int, ...]]) -> NeutralPrefix:
    pairs = next_token_pairs(windows, model.vocabulary)
    left = list(candidates)
    if len(left) > FINALISTS:
        few = pairs.most_frequent(SCREENED)
        screened = {text: _gain(model, candidates[text], few) for text in left}
        left = [text for text in left if text in sorted(left, key=screened.__getitem__)[-FINALISTS:] or text == ""]
    pairs = pairs.most_frequent(LONE)
    gains = {text: _gain(model, candidates[text], pairs) for text in left}
    best = max(left, key=gains.__getitem__)  # of equals the first, which is none
    return NeutralPrefix(candidates[best], best, gains)


@torch.inference_mode()
def _gain(model: LanguageModel, prefix: tuple[int, ...], pairs: Pairs) -> float:
    """Return the mean bits that lone tokens after `prefix` tell about the next, temperature and share fitted."""
    front = torch.tensor(prefix, dtype=torch.int64)
    length = 1 + len(prefix)
    step = max(1, min(LOGIT_BYTES // (4 * model.vocabulary * length), rows_at_once(model, length, head=True)))
    found = torch.empty(len(TEMPERATURES), len(pairs.row))
    for start in range(0, len(pairs.alone), step):
        alone = pairs.alone[start : start + step]
        ids = torch.cat([front.expand(len(alone), -1), alone[:, None]], dim=1).to(model.device)
        logits = model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1]
        mine = torch.nonzero((pairs.row >= start) & (pairs.row < start + len(alone)))[:, 0]
        row, token = (part[mine].to(logits.device) for part in (pairs.row - start, pairs.token))
        found[:, mine] = token_log_probabilities(logits, row, token, TEMPERATURES).cpu()
    log_u = pairs.log_u[pairs.token]
    chosen = calibrate(found, log_u, pairs.weights)
    log_p = found[TEMPERATURES.index(chosen.temperature)].double()
    return float(gain_bits(log_p, log_u.double(), chosen.share) @ pairs.weights)


def _cache_file(model: LanguageModel) -> Path | None:
    """Where the prefix of this model is kept; None where there is no cache folder."""
    base = cache_folder()
    return None if base is None else base / "prefixes" / f"{_content(model)}.json"


def _content(model: LanguageModel) -> str:
    """Return a hash of the model and its tokenizer: names, shapes and a sample of the values of all weights."""
    digest = hashlib.sha256(f"{VERSION} {model.family} {model.revision}".encode())
    digest.update(_tokenizer_content(model.tokenizer))
    for name, weight in model.model.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        if weight.device.type != "meta":  # those lie on disk
            values = weight.detach().flatten()
            digest.update(values[:: max(1, len(values) // 64)][:64].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def _tokenizer_content(tokenizer: Any) -> bytes:
    text: str = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256((text + repr(tokenizer.special_tokens_map)).encode("utf-8", "replace")).digest()


def _read(file: Path, candidates: dict[str, tuple[int, ...]]) -> NeutralPrefix | None:
    """Return what was kept; None if there is nothing, or it is not what `_write` writes for these candidates."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        text, gains = kept["text"], kept["gains"]
        sound = (
            kept["version"] == VERSION
            and text in candidates
            and set(gains) <= set(candidates)
            and all(isinstance(bits, float) and np.isfinite(bits) for bits in gains.values())
            and gains[text] == max(gains.values())
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError, AttributeError):
        return None
    return NeutralPrefix(candidates[text], text, gains) if sound else None


def _write(file: Path, found: NeutralPrefix) -> None:
    """Keep what was found; where nothing can be written it is searched for again next time."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            content = {"version": VERSION, "text": found.text, "gains": found.gains}
            temporary.write_text(json.dumps(content), encoding="utf-8")
