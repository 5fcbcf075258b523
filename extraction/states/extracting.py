"""The states of a model along the windows of a corpus, on one scale for macro and micro."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from estimators.base import InputError, Progress
from estimators.contracts.closing import Closing
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel
from extraction.states.budget import DEFAULT_BUDGET, StateBudget, state_bytes
from extraction.states.likelihoods import Likelihoods
from extraction.states.passes import Passes, sources
from extraction.states.sinks import Sinks
from extraction.states.spill import StateStore, described, folder_for, spill_folder
from extraction.states.statistics import Statistics, pooled_statistics, with_scale

logger = logging.getLogger(__name__)


class Store(Protocol):
    """States by point in the network and position."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(points, positions, rows, features)."""
        ...

    def read(self, point: int, position: int) -> Tensor:
        """Return states (rows, features)."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class States(Closing):
    """Normalised states of every block along every window; see `extract`, which makes it.

    Close it, or use it in a `with`, to free the memory or disk it holds. What its methods return may be what it holds:
    do not change it in place.

    Attributes:
        blocks: number of blocks L.
        positions: tokens per window T.
        features: features k of a state after projection.
        statistics: what the states were normalised by; pass it to `extract` to put other text on the same scale.
        likelihoods: what the model's head says along the windows; None unless asked for.
        spilled_bytes: bytes held on disk; 0 when all is in memory.
        sinks: which positions are attention sinks; None where the statistics are of other text.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with extract(model, windows("animal", model.tokenizer, count=50)) as states:
    ...     states.blocks, states.positions, states.features, states.micro_leaving(block=0).shape
    (4, 10, 16, torch.Size([17, 16]))
    """

    def __init__(
        self,
        macro: Store,
        micro: Store,
        statistics: Statistics,
        likelihoods: Likelihoods | None,
        spilled: int,
        sinks: Sinks | None,
    ) -> None:
        self._macro = macro
        self._micro = micro
        self.statistics = statistics
        self.likelihoods = likelihoods
        self.spilled_bytes = spilled
        self.sinks = sinks
        self.blocks = macro.shape[0] - statistics.entering
        self.positions = macro.shape[1]
        self.features = macro.shape[3]

    def leaving(self, block: int, t: int) -> Tensor:
        """States (N, k) that leave `block` at position `t` (from 1), one row per window."""
        return self._macro.read(self._point(block, leaving=True), self._position(t))

    def entering(self, block: int, t: int) -> Tensor:
        """States (N, k) that enter `block` at position `t` (from 1); block 0 only if extracted with `entering`."""
        return self._macro.read(self._point(block, leaving=False), self._position(t))

    def micro_leaving(self, block: int) -> Tensor:
        """States (V, k) that leave `block` when each distinct token is run alone."""
        return self._micro.read(self._point(block, leaving=True), 0)

    def micro_entering(self, block: int) -> Tensor:
        """States (V, k) that enter `block` when each distinct token is run alone."""
        return self._micro.read(self._point(block, leaving=False), 0)

    def scale(self, block: int) -> float:
        """RMS norm of the centred states leaving `block`, pooled as for normalisation: what rho is relative to."""
        return float(self.statistics.scale[self._point(block, leaving=True)])

    @property
    def nll_bits(self) -> Tensor | None:
        """(N, T) negative log2 likelihood of each token given those before; None unless likelihoods was asked for."""
        return None if self.likelihoods is None else self.likelihoods.nll_bits

    def close(self) -> None:
        """Free the memory or disk the states are kept in."""
        self._macro.close()
        self._micro.close()

    def _point(self, block: int, *, leaving: bool) -> int:
        if not 0 <= block < self.blocks:
            raise InputError(f"Blocks are numbered 0 to {self.blocks - 1}; got {block}.")
        point = block + leaving - (not self.statistics.entering)
        if point < 0:
            raise InputError("What enters block 0 was not extracted; pass entering=True to extract.")
        return point

    def _position(self, t: int) -> int:
        if not 1 <= t <= self.positions:
            raise InputError(f"Positions are numbered 1 to {self.positions}; got {t}.")
        return t - 1


@dataclass(frozen=True, slots=True)
class Projection:
    """How wide states are reduced: a uniformly random orthogonal projection.

    Attributes:
        features: to keep where the model is wider; None keeps the model's own.
        seed: of the projection; states of different models are projected apart.

    >>> Projection(64)
    Projection(features=64, seed=0)
    """

    features: int | None = 256
    seed: int = 0


def extract(
    model: LanguageModel,
    windows: Windows,
    *,
    projection: Projection = Projection(),
    entering: bool = False,
    likelihoods: bool = True,
    statistics: Statistics | None = None,
    budget: StateBudget = DEFAULT_BUDGET,
    progress: Progress | None = None,
) -> States:
    """Run a model over windows, and over each of their distinct tokens alone, and keep its normalised states.

    A state is z-scored per feature, by mean and standard deviation pooled over the layer: all positions of the
    windows (by their weights) and the tokens run alone (by how often they occur) have half the weight each, so that
    macro and micro share one scale. If the model is wider than `projection.features`, a seeded orthogonal projection
    follows, the same for all blocks. With at most 1,024 windows the statistics come from all of them, with more from
    the first 1,024 (windows are in random order); of the tokens always from all. `Statistics.windows` records it.

    Args:
        model: from `load_model`.
        windows: from `extraction.windows` with the model's tokenizer.
        projection: features to keep and the seed of the projection, unless `statistics` bring theirs.
        entering: also keep what enters block 0 (what enters a later block is what leaves the one before).
        likelihoods: also run the head: likelihoods, entropies and predictions along the windows.
        statistics: of another run of this model, to normalise by instead of those of these windows.
        budget: how much is held in memory, and where more is spilled; `spilled_bytes` says beforehand how much.
        progress: called with the number of sequences that have run.

    Raises:
        InputError: if a window is longer than the context, ids are not the model's, statistics are of another model, or
            more than `budget.spill_gb`, or than the disk has room for, must be spilled.
        EmergenceError: if memory runs out even with single sequences.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> with extract(model, windows("animal", model.tokenizer, count=50)) as states:
    ...     states.leaving(block=3, t=10).shape, states.nll_bits.shape
    (torch.Size([50, 16]), torch.Size([50, 10]))
    """
    project, seed = projection.features, projection.seed
    check_windows(model, windows)
    if project is not None and project < 1:
        raise InputError(f"project is the number of features to keep, at least 1; got {project}.")
    features = model.width if project is None else min(project, model.width)
    points = len(model.blocks) + entering
    if statistics is not None and (statistics.mean.shape, statistics.features) != ((points, model.width), features):
        raise InputError(
            f"The statistics given hold {statistics.mean.shape[0]} points of {statistics.mean.shape[1]} features "
            f"projected to {statistics.features}, but {model.name} gives {points} of {model.width} projected to "
            f"{features}; take those of the same model and options."
        )
    both = sources(windows)
    shapes = [(points, source.ids.shape[1], len(source.ids), features) for source in both]
    spilled = spilled_bytes(model, windows, project=project, entering=entering, budget=budget)
    folder = folder_for(spilled, budget, "take fewer windows or a smaller project")
    if folder is not None:
        logger.info("Spilling %.1f GB of states of %s to %s", spilled / 1e9, model.name, described(folder))
    with ExitStack() as undo:
        stores = [undo.enter_context(closing(StateStore(shape, folder))) for shape in shapes]
        passes = Passes(model, windows.prefix, points, 0 if entering else 1, budget.bytes, progress)
        norm = statistics
        if norm is None:
            pilot = passes.measure(both, likelihoods=likelihoods)
            norm = pooled_statistics(*pilot, features=features, seed=seed, entering=entering, windows=both[0].pilot)
        moments, said = passes.keep(both, norm, stores, likelihoods=likelihoods)
        if statistics is None:
            norm = with_scale(norm, *moments)
        undo.pop_all()
    return States(stores[0], stores[1], norm, said, spilled, passes.norms.sinks())


def spilled_bytes(
    model: LanguageModel,
    windows: Windows,
    *,
    project: int | None = 256,
    entering: bool = False,
    budget: StateBudget = DEFAULT_BUDGET,
) -> int:
    """Return how many bytes `extract` will spill to disk with these arguments; 0 if all fits in memory.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> animals = windows("animal", model.tokenizer, count=50)
    >>> spilled_bytes(model, animals), spilled_bytes(model, animals, budget=StateBudget(states_gb=1e-6)) > 0
    (0, True)
    """
    features = model.width if project is None else min(project, model.width)
    points = len(model.blocks) + entering
    distinct = len(windows.distinct_tokens()[0])
    return budget.spilled(state_bytes(points, features, len(windows), windows.tokens.shape[1], distinct))


def spill_notice(
    model: LanguageModel,
    windows: Windows,
    *,
    project: int | None = 256,
    entering: bool = False,
    budget: StateBudget = DEFAULT_BUDGET,
) -> str:
    """Return a sentence on what `extract` will spill with these arguments, and where; empty if all fits in memory.

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> spill_notice(model, windows("animal", model.tokenizer, count=50))  # memory holds all
    ''
    """
    size = spilled_bytes(model, windows, project=project, entering=entering, budget=budget)
    return spilling(model, size, budget) if size else ""


def spilling(model: LanguageModel, size: int, budget: StateBudget) -> str:
    """Say that `size` bytes of states will be spilled, and where."""
    return (
        f"{size / 1e9:.3g} GB of states of {model.name} will be spilled to {described(spill_folder(budget.spill_dir))}."
    )


def check_windows(model: LanguageModel, windows: Windows) -> None:
    """Refuse windows that a model cannot be run on.

    Raises:
        InputError: if there are none, they are longer than the context, or their ids are not the model's.
    """
    if not len(windows):
        raise InputError(f"There are no windows of {windows.corpus} to run; take at least one.")
    length = len(windows.prefix) + windows.tokens.shape[1]
    if length > model.context:
        raise InputError(
            f"A window of {windows.corpus} is {length} tokens with what the tokenizer adds, but the context of "
            f"{model.name} is {model.context}; take fewer tokens."
        )
    largest = int(windows.tokens.max())
    if largest >= model.vocabulary:
        raise InputError(
            f"The windows of {windows.corpus} hold token {largest}, but {model.name} knows {model.vocabulary}; make "
            "them with the tokenizer of this model."
        )
