"""How answers were made and read, stored with the features: a proxy holds for answers made like its references'."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from estimators.base import InputError

if TYPE_CHECKING:
    from extraction import LanguageModel

COLUMN = "provenance"  # of a table of features; JSON
ASKED = "output_asked"  # column of a table of features: how what models say next was asked for, see `how_asked`
SKETCH = 32  # smallest hashes of prompts kept: they estimate what share two sets have in common
ALIKE = 0.9  # share of prompts in common from which two sets count as nearly the same
CUT_FROM, CUT_SHARE = 100, 0.05  # characters, share of answers of exactly the greatest length: then they were cut there
PROBED = 256  # numbers of each weight that distinguish one reader from another


@dataclass(frozen=True, slots=True)
class Provenance:
    """What features of one model were made from, as far as it is known.

    Attributes:
        prompts: hash of the prompts, whatever their order.
        count: how many they are.
        sketch: the smallest hashes of single prompts.
        samples: of each prompt, the most of any.
        characters: length at which answers were cut; None where they were not, or it is not known.
        longest: characters of the longest answer.
        sampling: settings by name, such as temperature and max_tokens; empty where the table does not hold them.
        readers: fingerprint of each reader by its short name.
    """

    prompts: str
    count: int
    sketch: tuple[str, ...]
    samples: int
    characters: int | None
    longest: int
    sampling: dict[str, Any] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)

    def dumps(self) -> str:
        """Return the JSON of it, the same for equal values."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def sentence(self) -> str:
        """For a card."""
        cut = "" if self.characters is None else f", first {self.characters:,} characters"
        unset: list[Any] = [None, "", []]
        given = [(name, value) for name, value in sorted(self.sampling.items()) if value is not False]
        asked = "".join(f", {name} {value}" for name, value in given if value not in unset)
        readers = ", ".join(f"{name} ({mark})" for name, mark in sorted(self.readers.items())) or "none"
        return f"{self.count} prompts (hash {self.prompts}), {self.samples} a prompt{cut}{asked}; readers: {readers}"


def provenance_of(answers: pd.DataFrame, readers: dict[str, str], *, characters: int | None = None) -> Provenance:
    """Read from the answers of one model how they were made.

    Args:
        answers: rows of the responses table, failed ones too; ``sampling`` may hold the settings in JSON.
        readers: fingerprint of each reader by its short name.
        characters: at which the answers were cut before they were read, if they were.
    """
    named = answers["prompt"].fillna(answers["prompt_id"]).astype(str)
    marks = sorted(_hash(prompt)[:8] for prompt in named.unique())
    lengths = answers["text"].dropna().str.len()
    longest = int(lengths.max()) if len(lengths) else 0
    at_end = lengths == longest
    cut = longest >= CUT_FROM and int(at_end.sum()) >= 3 and float(at_end.mean()) >= CUT_SHARE
    return Provenance(
        prompts=_hash("".join(marks))[:16],
        count=len(marks),
        sketch=tuple(marks[:SKETCH]),
        samples=int(answers.groupby(named).size().max()),
        characters=longest if cut else characters,
        longest=longest,
        sampling=_settings(answers),
        readers=readers,
    )


def how_asked(corpus: str, *, tokens: int, shown: int, chat: bool) -> str:
    """Say how what models say next was asked for: features compare where it is the same.

    Args:
        corpus: whose windows.
        tokens: of a window.
        shown: tokens shown with their logprob; 0: samples alone.
        chat: whether windows went in as a message with an instruction.

    >>> how_asked("python-docs", tokens=8, shown=20, chat=False)
    'python-docs, windows of 8 tokens, as text, 20 tokens shown'
    """
    seen = f"{shown} tokens shown" if shown else "sampled"
    return f"{corpus}, windows of {tokens} tokens, {'as a chat' if chat else 'as text'}, {seen}"


def read_provenance(text: str) -> Provenance:
    """Read what `Provenance.dumps` wrote.

    Raises:
        InputError: if it is anything else.
    """
    try:
        found = json.loads(text)
        return Provenance(**{**found, "sketch": tuple(found["sketch"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"Column {COLUMN} holds {text[:40]!r}, not what `emergence features` writes there; leave it empty where it "
            "is not known."
        ) from error


def differences(references: Sequence[Provenance], other: Provenance) -> tuple[list[str], list[str]]:
    """Return why features of `other` do not compare with those of the references, and what to say where they do.

    Args:
        references: provenances of the references, which compare with one another.
        other: that of a model to be estimated.
    """
    refused, said = [], []
    known = references[0]
    shared = _in_common(known, other)
    if shared < ALIKE or not ALIKE <= other.count / known.count <= 1 / ALIKE:
        refused.append(
            f"other prompts ({other.count}, of which about {shared:.0%} are among the references' {known.count}); make "
            "the features of both from answers to the same prompts"
        )
    elif other.prompts not in {one.prompts for one in references}:
        said.append(f"asked {other.count} prompts that are nearly those of the references")
    if other.samples != known.samples:
        remedy = (
            f"keep {known.samples} of each (features --samples {known.samples})"
            if other.samples > known.samples
            else "collect as many"
        )
        refused.append(f"{other.samples} samples a prompt, the references {known.samples}; {remedy}")
    refused += _lengths(references, other)
    for name in sorted({*known.sampling} & {*other.sampling}):
        mine, theirs = other.sampling[name], known.sampling[name]
        if mine != theirs and None in (mine, theirs):
            said.append(f"{name} left to the server on one side only")
        elif mine != theirs:
            refused.append(f"{name} {mine}, the references {theirs}; ask the model again with theirs")
    if bool(known.sampling) != bool(other.sampling):
        said.append("how answers were sampled is not recorded on one side")
    for name in sorted({*known.readers} & {*other.readers}):
        if known.readers[name] != other.readers[name]:
            refused.append(f"a reader {name} with other weights; read both with one")
    return refused, said


def _lengths(references: Sequence[Provenance], other: Provenance) -> list[str]:
    """Return the refusal of answers that were cut at a length that those of the other side exceed."""
    at, longest = references[0].characters, max(one.longest for one in references)
    if at is not None and other.longest > at and other.characters != at:
        return [
            f"answers of up to {other.longest:,} characters, the references' end at {at:,}; cut them there (features "
            f"--characters {at})"
        ]
    if at is None and other.characters is not None and longest > other.characters:
        return [
            f"answers that end at {other.characters:,} characters, the references' have up to {longest:,}; cut them "
            f"there (features --characters {other.characters})"
        ]
    return []


def fingerprint(model: LanguageModel) -> str:
    """Return 12 hex digits that distinguish readers: some numbers of each weight, all shapes, and its prefix."""
    digest = hashlib.sha256(repr(model.prefix).encode() if model.prefix else b"")
    for name, weight in sorted(model.model.state_dict().items()):
        start = weight.detach().flatten()[:PROBED].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + start.tobytes())
    return digest.hexdigest()[:12]


def as_read(answers: pd.DataFrame, *, samples: int | None = None, characters: int | None = None) -> pd.DataFrame:
    """Return the first `samples` of each prompt of each model, their texts cut after `characters`.

    Example:
        >>> rows = pd.DataFrame({"model": "m", "prompt_id": ["1", "1", "2"], "text": ["abc", "de", "f"]})
        >>> as_read(rows, samples=1, characters=2)["text"].tolist()
        ['ab', 'f']
    """
    if samples is not None:
        answers = answers[answers.groupby(["model", "prompt_id"]).cumcount() < samples]
    if characters is not None:
        answers = answers.assign(text=answers["text"].str[:characters])
    return answers


def _in_common(one: Provenance, other: Provenance) -> float:
    """Estimate the share of two sets of prompts that is in both, of those in any, by their smallest hashes."""
    smallest = sorted({*one.sketch, *other.sketch})[:SKETCH]
    return sum(mark in one.sketch and mark in other.sketch for mark in smallest) / max(1, len(smallest))


def _settings(answers: pd.DataFrame) -> dict[str, Any]:
    """Return the settings that all answers share; without those that differ among them."""
    if "sampling" not in answers.columns:
        return {}
    found: list[dict[str, Any]] = []
    for text in answers["sampling"].dropna().unique():
        try:
            found.append(dict(json.loads(text)))
        except (ValueError, TypeError) as error:
            raise InputError(f"Column sampling holds {str(text)[:40]!r}, which is not a JSON object.") from error
    if not found:
        return {}
    return {name: value for name, value in found[0].items() if all(one.get(name) == value for one in found)}


def _hash(text: str) -> str:
    return hashlib.sha256(re.sub(r"\s+", " ", text).strip().encode()).hexdigest()
