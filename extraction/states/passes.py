"""The two passes of an extraction: one for the statistics, one that normalises and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from estimators.base import Progress
from extraction.corpora.token_windows import Windows
from extraction.models.batches import rows_at_once
from extraction.models.load import LanguageModel
from extraction.states.budget import PILOT_WINDOWS
from extraction.states.forward import Batch, Reduce, run_batches, to_host
from extraction.states.likelihoods import Likelihoods
from extraction.states.sinks import Norms
from extraction.states.spill import StateStore
from extraction.states.statistics import Moments, Normaliser, Statistics


@dataclass(eq=False)
class Source:
    """Sequences of one kind: the windows, or their distinct tokens alone.

    Attributes:
        ids: (n, T) token ids.
        weights: (n,) how often each occurs.
        pilot: how many of the first rows the statistics come from.
        raw: what the model gave for them, where there is memory to keep it from the first pass for the second.
    """

    ids: Tensor
    weights: Tensor
    pilot: int
    raw: list[Batch] = field(default_factory=list)


def sources(windows: Windows) -> tuple[Source, Source]:
    """Return the windows and their distinct tokens as sequences to run."""
    ids, occurrence = windows.distinct_tokens()
    weights = torch.from_numpy(windows.weights)
    counts = torch.zeros(len(ids), dtype=torch.float64)
    counts.index_add_(0, torch.from_numpy(occurrence).reshape(-1), weights.repeat_interleave(occurrence.shape[1]))
    macro = Source(torch.from_numpy(windows.tokens), weights, min(len(windows), PILOT_WINDOWS))
    return macro, Source(torch.from_numpy(ids)[:, None], counts, len(ids))


@dataclass(eq=False)
class Passes:
    """Runs sequences through a model and takes its states at `points`, from `first` on, within `budget` bytes."""

    model: LanguageModel
    prefix: tuple[int, ...]
    points: int
    first: int
    budget: int
    progress: Progress | None = None
    done: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        """Take down the norms of raw states of the pilots, by which sinks are found."""
        self.norms = Norms(1 - self.first)

    def measure(self, sources: tuple[Source, ...], *, likelihoods: bool) -> list[Moments]:
        """Run each pilot for the moments of its states; these are kept if a quarter of the budget holds them."""
        room = self.budget // 4
        kept = []
        for source in sources:
            size = 4 * self.points * self.model.width * source.ids[: source.pilot].numel()
            kept.append(size <= room)
            room -= size if kept[-1] else 0
            self.total += len(source.ids) + (0 if kept[-1] else source.pilot)
        moments = []
        for source, keep in zip(sources, kept, strict=True):
            found = Moments(self.points, self.model.width)
            with_head = likelihoods and keep and source is sources[0]
            for batch in self._run(source.ids[: source.pilot], _raw, self.model.width, likelihoods=with_head):
                for point, states in enumerate(batch.states):
                    found.add(point, states, source.weights[batch.start : batch.stop])
                self.norms.add(batch.states, alone=source is not sources[0])
                if keep:
                    source.raw.append(batch)
            moments.append(found)
        return moments

    def keep(
        self, sources: tuple[Source, ...], statistics: Statistics, stores: list[StateStore], *, likelihoods: bool
    ) -> tuple[list[Moments], Likelihoods | None]:
        """Normalise the states of each source into its store; returns the moments of the normalised states."""
        self.total = self.total or sum(len(source.ids) for source in sources)
        normaliser = Normaliser(statistics)
        moments, said = [], []
        for source, store in zip(sources, stores, strict=True):
            found = Moments(self.points, statistics.features)
            with_head = likelihoods and source is sources[0]
            for batch in self._normalised(source, normaliser, statistics.features, with_head):
                for point, states in enumerate(batch.states):
                    found.add(point, states, source.weights[batch.start : batch.stop])
                    store.write(point, batch.start, states.transpose(0, 1))
                if batch.likelihoods is not None:
                    said.append(batch.likelihoods)
            moments.append(found)
        return moments, Likelihoods.concatenated(said) if likelihoods else None

    def keep_raw(
        self, sources: tuple[Source, ...], stores: list[StateStore], *, likelihoods: bool
    ) -> Likelihoods | None:
        """Put the states of each source, as the model makes them, into its store."""
        self.total = sum(len(source.ids) for source in sources)
        said = []
        for source, store in zip(sources, stores, strict=True):
            with_head = likelihoods and source is sources[0]
            for batch in self._run(source.ids, _raw_on_host, self.model.width, likelihoods=with_head):
                for point, states in enumerate(batch.states):
                    store.write(point, batch.start, states.transpose(0, 1))
                if batch.start < source.pilot:
                    self.norms.add(batch.states, alone=source is not sources[0])
                if batch.likelihoods is not None:
                    said.append(batch.likelihoods)
        return Likelihoods.concatenated(said) if likelihoods else None

    def _normalised(self, source: Source, normaliser: Normaliser, features: int, likelihoods: bool) -> Iterator[Batch]:
        """First what was kept of the first pass, freed as it is used, then the rest."""
        start = 0
        source.raw.reverse()
        while source.raw:
            raw = source.raw.pop()
            states = [normaliser(point, state).cpu() for point, state in enumerate(raw.states)]
            start = raw.stop
            yield Batch(raw.start, raw.stop, states, raw.likelihoods)

        def reduce(point: int, states: Tensor) -> Tensor:
            return to_host(normaliser(point, states))

        yield from self._run(source.ids, reduce, features, likelihoods=likelihoods, start=start)

    def _run(
        self,
        ids: Tensor,
        reduce: Reduce,
        features: int,
        *,
        likelihoods: bool,
        start: int = 0,
    ) -> Iterator[Batch]:
        tokens = len(self.prefix) + ids.shape[1]
        bytes_per_token = 4 * self.points * features
        if likelihoods:
            bytes_per_token += 8 * self.model.vocabulary
        most = min(
            rows_at_once(self.model, tokens, head=likelihoods, held=bytes_per_token * tokens),
            self.budget // 4 // (bytes_per_token * tokens),
        )
        batches = run_batches(
            self.model,
            ids,
            lambda point, state: reduce(point - self.first, state) if point >= self.first else None,
            prefix=self.prefix,
            batch=max(1, most),
            start=start,
            likelihoods=likelihoods,
        )
        for batch in batches:
            yield batch
            self.done += batch.stop - batch.start
            if self.progress is not None:
                self.progress(self.done, self.total)


def _raw(point: int, states: Tensor) -> Tensor:
    return states.clone()  # the output of a block may be changed in place by the next


def _raw_on_host(point: int, states: Tensor) -> Tensor:
    return to_host(states.clone() if states.dtype == torch.float32 else states.float())
