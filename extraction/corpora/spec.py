"""Which corpus a name stands for: what tables call it, which version it is, and how much work its windows are."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from estimators.base import InputError
from estimators.contracts.files import check_file
from extraction.corpora.categories import CATEGORIES, SHOWN
from extraction.corpora.data_sets import parse_data_set
from extraction.corpora.lists import read_entities
from extraction.corpora.text import ENDINGS
from extraction.labels import labels
from extraction.versions import HUB_ID, content_hash, hub_commit, text_hash

PYTHON_DOCS = "python-docs"
BUILT_IN = (*CATEGORIES, PYTHON_DOCS)
TEXT_TOKENS = 8  # of a window of text
DEMONSTRATIONS = 4  # of a window of a list in a file
TOKENS_KNOWN = 20_000  # distinct tokens that a text shows at most
ALL_WINDOWS = 400_000  # of a text whose windows are all taken


@dataclass(frozen=True, slots=True)
class CorpusOptions:
    """What to read of a corpus, and where its windows start.

    Attributes:
        at: ``sentence``: windows of text start where sentences do, as in the paper; ``anywhere``: at any token.
        demonstration: tokens of an entity and its comma in a list; the paper's lists have 2.
        column: column of the text in a table; default: the first of text, output, response, content there is.
        revision: branch, tag or commit of an ``hf:`` data set.

    Example:
        >>> CorpusOptions(column="answer").at
        'sentence'
    """

    at: str = "sentence"
    demonstration: int = 2
    column: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class CorpusSource:
    """Where a corpus is found.

    Attributes:
        kind: `list` (a category's entities), `docs` (the reference texts in every Python), `hub` or `file` (or folder).
        source: as it was given.
        path: of a file, a folder or a list in a file.
    """

    kind: Literal["list", "docs", "hub", "file"]
    source: str
    path: Path | None = None

    @property
    def label(self) -> str:
        """What tables call the corpus: the name of its file, without the folder; see `corpus_names`."""
        if self.path is None:
            return self.source
        return f"list:{self.path.name}" if self.kind == "list" else self.path.name

    @cached_property
    def entities(self) -> Sequence[str]:
        """The entities of a list.

        Raises:
            InputError: if the file of a list in a file cannot be used.
        """
        return CATEGORIES[self.source] if self.path is None else read_entities(self.path)

    def tokens(self, chosen: int | None, demonstration: int = 2) -> int:
        """Return T, the tokens of a window: `chosen`, else the paper's (8 or 10) for its categories and 8 for others.

        >>> [resolve_corpus(name).tokens(None) for name in ("country", "animal", "python-docs")]
        [8, 10, 8]
        """
        if chosen is not None:
            return chosen
        return demonstration * SHOWN.get(self.source, DEMONSTRATIONS) if self.kind == "list" else TEXT_TOKENS

    def version(self) -> str:
        """Return a hash of the corpus' content, or the commit of a data set of the hub.

        Where the hub is out of reach and its cache does not know the data set, the hash is of the name alone.

        Raises:
            InputError: if the hub has no such data set, or a file is empty.
        """
        if self.path is not None and self.path.is_dir():
            files = sorted(inner for inner in self.path.rglob("*") if inner.suffix in ENDINGS)
            return text_hash("\n".join(f"{file.relative_to(self.path)} {content_hash(file)}" for file in files))
        if self.path is not None:
            check_file(self.path)
            if self.path.stat().st_size == 0:
                raise InputError(
                    f"The corpus {self.source} is an empty file; give a text with at least one window of tokens."
                )
            return content_hash(self.path)[:16]
        if self.kind == "list":
            return text_hash("\n".join(self.entities))
        if self.kind == "docs":
            from pydoc_data.topics import topics

            return text_hash("\n".join(topics[name] for name in sorted(topics)))
        name = parse_data_set(self.source).name
        on_hub = HUB_ID.fullmatch(name) and not Path(name).exists()
        commit = hub_commit("dataset", name, "main") if on_hub else None
        return commit or text_hash(self.source)

    def workload(self, windows: int | None, tokens: int | None, demonstration: int = 2) -> Workload:
        """Estimate, before anything is read, what `windows` windows of `tokens` tokens are: of text at most.

        >>> resolve_corpus("animal").workload(2000, None)
        Workload(windows=2000, tokens=10, distinct=17)
        """
        length = self.tokens(tokens, demonstration)
        if self.kind == "list":
            shown = length // demonstration
            total = math.perm(len(self.entities), shown)
            distinct = len(self.entities) * (demonstration - 1) + 1
            return Workload(total if windows is None else min(windows, total), shown * demonstration, distinct)
        count = ALL_WINDOWS if windows is None else windows
        return Workload(count, length, min(TOKENS_KNOWN, count * length))


class Workload(NamedTuple):
    """Windows, tokens of each, and distinct tokens among them."""

    windows: int
    tokens: int
    distinct: int


def corpus_names(sources: Sequence[CorpusSource]) -> list[str]:
    """Return the label of each corpus in tables; files with the same name are distinguished by their folders.

    >>> one, two = (CorpusSource("file", f"{run}/notes.txt", Path(f"/texts/{run}/notes.txt")) for run in "ab")
    >>> corpus_names([one, two, resolve_corpus("animal")])
    ['a/notes.txt', 'b/notes.txt', 'animal']
    """
    told_apart = labels({source.path: source.path.name for source in sources if source.path})
    return [
        source.label if source.path is None else source.label.replace(source.path.name, told_apart[source.path])
        for source in sources
    ]


def resolve_corpus(source: str | os.PathLike[str]) -> CorpusSource:
    """Find out what `source` stands for: ``country``, ``python-docs``, ``list:FILE``, ``hf:NAME``, a file or folder.

    Raises:
        InputError: if there is no such corpus.
    """
    text = os.fspath(source)
    if text in CATEGORIES:
        return CorpusSource("list", text)
    if text == PYTHON_DOCS:
        return CorpusSource("docs", text)
    if text.startswith("hf:"):
        return CorpusSource("hub", text)
    is_list = text.startswith("list:")
    place = os.path.abspath(os.path.expanduser(text.removeprefix("list:")))
    check_file(Path("-" if text in ("-", "list:-") else place))
    if is_list and not os.path.isfile(place):
        raise InputError(f"No list of entities at {place}; give list:FILE with one entity per line.")
    if os.path.exists(place):  # Path would raise on a long text
        return CorpusSource("list" if is_list else "file", text, Path(place))
    near = difflib.get_close_matches(text.lower(), BUILT_IN, n=1, cutoff=0.4)
    raise InputError(
        f"Unknown corpus {text}: it is neither a file or folder nor one of {', '.join(BUILT_IN)}"
        + (f"; nearest: {near[0]}." if near else ".")
    )
