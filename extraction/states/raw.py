"""States as a model makes them, not normalised and not projected: what a lens and other observers read."""

from __future__ import annotations

from contextlib import ExitStack, closing

import torch
from torch import Tensor

from estimators.base import Progress
from estimators.contracts.closing import Closing
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel
from extraction.states.budget import DEFAULT_BUDGET, StateBudget, state_bytes
from extraction.states.extracting import Projection, States, check_windows
from extraction.states.likelihoods import Likelihoods
from extraction.states.passes import Passes, Source, sources
from extraction.states.sinks import Sinks
from extraction.states.spill import StateStore, folder_for
from extraction.states.statistics import Moments, Normaliser, Statistics, pooled_statistics, with_scale


class RawStates(Closing):
    """What leaves every block along every window, and of each distinct token alone; see `raw_states`, which makes it.

    Use it in a `with`, to free the memory or disk it holds.

    Attributes:
        macro: (blocks, T, N, width) states of the windows.
        micro: (blocks, 1, V, width) states of the distinct tokens.
        likelihoods: what the model's head says along the windows; None unless asked for.
        sinks: which positions are attention sinks.
    """

    def __init__(
        self,
        macro: StateStore,
        micro: StateStore,
        likelihoods: Likelihoods | None,
        sources: tuple[Source, Source],
        sinks: Sinks | None,
    ) -> None:
        self.macro = macro
        self.micro = micro
        self.likelihoods = likelihoods
        self.sinks = sinks
        self._sources = sources

    def normalised(self, projection: Projection) -> States:
        """Return the states that `extract` would give of the same windows, normalised as they are read.

        Args:
            projection: features to keep, and its seed.
        """
        points, _, _, width = self.macro.shape
        stores = (self.macro, self.micro)
        pilots = [
            self._moments(store, source, source.pilot) for store, source in zip(stores, self._sources, strict=True)
        ]
        norm = pooled_statistics(
            pilots[0],
            pilots[1],
            features=width if projection.features is None else min(projection.features, width),
            seed=projection.seed,
            entering=False,
            windows=self._sources[0].pilot,
        )
        views = [_Normalised(store, norm) for store in stores]
        norm = with_scale(
            norm,
            *(self._moments(view, source, len(source.ids)) for view, source in zip(views, self._sources, strict=True)),
        )
        assert points == len(norm.mean)  # noqa: S101
        return States(views[0], views[1], norm, self.likelihoods, 0, self.sinks)

    @staticmethod
    def _moments(store: StateStore | _Normalised, source: Source, rows: int) -> Moments:
        points, positions, _, width = store.shape
        found = Moments(points, width)
        for point in range(points):
            for position in range(positions):
                found.add(point, store.read(point, position)[:rows, None], source.weights[:rows])
        return found

    def close(self) -> None:
        """Free the memory or disk the states are kept in."""
        self.macro.close()
        self.micro.close()


class _Normalised:
    """A store of raw states, normalised and projected whenever some are read."""

    def __init__(self, store: StateStore, statistics: Statistics) -> None:
        self._store = store
        self._normaliser = Normaliser(statistics)
        self.shape = (*store.shape[:3], statistics.features)

    def read(self, point: int, position: int) -> Tensor:
        return self._normaliser(point, self._store.read(point, position)[:, None])[:, 0]

    def close(self) -> None:
        """The raw states are closed by whoever holds them."""


def raw_states(
    model: LanguageModel,
    windows: Windows,
    *,
    likelihoods: bool = False,
    budget: StateBudget = DEFAULT_BUDGET,
    progress: Progress | None = None,
) -> RawStates:
    """Run a model over windows, and over each of their distinct tokens alone, and keep what leaves every block.

    Args:
        model: from `load_model`.
        windows: from `extraction.windows` with the model's tokenizer.
        likelihoods: also run the head: likelihoods, entropies and predictions along the windows.
        budget: how much is held in memory, and where more is spilled.
        progress: called with the number of sequences that have run.

    Raises:
        InputError: if a window is longer than the context, ids are not the model's, or more must be spilled than
            `budget.spill_gb` or the disk allow.
        EmergenceError: if memory runs out even with single sequences.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with raw_states(model, windows("animal", model.tokenizer, count=50)) as states:
    ...     states.macro.shape
    (4, 10, 50, 16)
    """
    check_windows(model, windows)
    both = sources(windows)
    points = len(model.blocks)
    folder = folder_for(raw_bytes(model, windows), budget)
    with ExitStack() as undo:
        stores = [
            undo.enter_context(closing(StateStore((points, each.ids.shape[1], len(each.ids), model.width), folder)))
            for each in both
        ]
        passes = Passes(model, windows.prefix, points, 1, budget.bytes, progress)
        said = passes.keep_raw(both, stores, likelihoods=likelihoods)
        undo.pop_all()
    return RawStates(stores[0], stores[1], said, both, passes.norms.sinks())


def raw_bytes(model: LanguageModel, windows: Windows) -> int:
    """Return the size of what `raw_states` keeps, in bytes."""
    distinct = len(windows.distinct_tokens()[0])
    return state_bytes(len(model.blocks), model.width, len(windows), windows.tokens.shape[1], distinct)


def token_bytes(tokenizer: object, ids: Tensor) -> Tensor:
    """Return how many bytes of UTF-8 each token (m,) stands for, float64; of byte-level tokens, their bytes."""
    names = tokenizer.convert_ids_to_tokens(ids.tolist())  # type: ignore[attr-defined]
    byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)  # type: ignore[attr-defined]
    return torch.tensor([_bytes(str(name), byte_level) for name in names], dtype=torch.float64)


def _bytes(name: str, byte_level: bool) -> int:
    if name.startswith("<0x") and name.endswith(">"):
        return 1
    # A byte-level vocabulary writes one character for each byte, others a special one for the space.
    return len(name) if byte_level else len(name.replace("\u2581", " ").encode())
