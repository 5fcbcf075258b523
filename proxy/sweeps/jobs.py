"""The jobs of a sweep: one model on one corpus each, keyed by all that determines the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from estimators.base import InputError
from estimators.contracts.results_folder import RESULT_VERSION
from extraction.corpora.loading import check_corpus
from extraction.corpora.spec import CorpusOptions, CorpusSource, corpus_names, resolve_corpus
from extraction.models.names import display_names, model_version, resolve_model
from extraction.versions import cached_model
from proxy.schemas import EMERGENCE
from proxy.sweeps.config import Corpus, Measurement, Model, Resources, SweepConfig

HUB_CALLS = 16  # at once


@dataclass(frozen=True)
class Job:
    """One model on one corpus.

    Attributes:
        model: what to load.
        model_name: what tables call it, however a folder was spelled.
        model_version: hash of a local model's files, or the commit of a hub model; None where not known.
        corpus: what to measure it on.
        corpus_name: what tables call it: the name of its file, after as many folders as distinguish it from others.
        corpus_version: hash of the corpus' content, or the commit of a data set of the hub.
        measurement: how bits are estimated, with its resolutions filled in.
        controls: whether its random-weights twin and shuffled windows are measured too.
        seed: the sweep's.
        resources: what its worker holds; of the sweep where the model says nothing. They do not change the result.
    """

    model: Model
    model_name: str
    model_version: str | None
    corpus: Corpus
    corpus_name: str
    corpus_version: str
    measurement: Measurement
    controls: bool = False
    seed: int = 0
    resources: Resources = field(default_factory=Resources)

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines the result, as JSON types; what only decides where it runs is left out."""
        model, revision = self.model.model_dump(mode="json", exclude={"parameters", "resources"}), self.model.revision
        return {
            "model": model | {"id": self.model_name, "revision": None if revision == "main" else revision},
            "model_version": self.model_version,
            "corpus": self.corpus.model_dump(mode="json") | {"source": self.corpus_name},
            "corpus_version": self.corpus_version,
            "measurement": self.measurement.model_dump(mode="json"),
            "controls": self.controls,
            "seed": self.seed,
            "versions": {"result": RESULT_VERSION, "table": EMERGENCE.version},
        }

    @cached_property
    def key(self) -> str:
        """16 hex digits of the hash of `settings`: equal work has an equal key, changed work another."""
        return _hash(self.settings)

    @property
    def earlier_keys(self) -> list[str]:
        """The keys that this job had in earlier versions of the program, whose results count no more."""
        settings = self.settings
        return [
            _hash(settings | {"versions": {"result": result, "table": table}})
            for result in range(1, RESULT_VERSION + 1)
            for table in range(1, EMERGENCE.version + 1)
            if (result, table) != (RESULT_VERSION, EMERGENCE.version)
        ]

    @property
    def label(self) -> str:
        """What a person calls the job."""
        return f"{self.model_name} on {self.corpus_name}"

    @cached_property
    def load_key(self) -> str:
        """Equal for jobs that one loading of the model serves."""
        shared = [self.settings["model"], self.model_version, self.controls, self.seed, self.measurement.prefix]
        return json.dumps(shared, sort_keys=True)


def _hash(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_jobs(config: SweepConfig, on_remark: Callable[[str], None] | None = None) -> list[Job]:
    """Expand a config into its jobs, model by model in the order of the config.

    What is listed again, also under another spelling, is one job; of two entries the first counts.

    Args:
        config: of the sweep.
        on_remark: called with a sentence on what is listed more than once.

    Raises:
        InputError: if a model or corpus does not exist, or a corpus cannot be read.
    """
    measurement = _resolved(config.measurement)
    sources = [resolve_model(model.id) for model in config.models]
    labels = display_names(sources)
    corpora = [resolve_corpus(corpus.source) for corpus in config.corpora]
    with ThreadPoolExecutor(HUB_CALLS) as pool:
        model_versions = [*pool.map(model_version, sources, [model.revision for model in config.models])]
        corpus_versions = [*pool.map(CorpusSource.version, corpora)]
    for corpus in config.corpora:
        check_corpus(corpus.source, tokens=corpus.tokens, options=CorpusOptions(column=corpus.column))
    jobs = [
        Job(
            model=model,
            model_name=labels[source.location],
            model_version=version,
            corpus=corpus,
            corpus_name=corpus_name,
            corpus_version=content,
            measurement=measurement,
            controls=config.controls,
            seed=config.seed,
            resources=(model.resources or Resources()).over(config.resources),
        )
        for model, source, version in zip(config.models, sources, model_versions, strict=True)
        for corpus, corpus_name, content in zip(config.corpora, corpus_names(corpora), corpus_versions, strict=True)
    ]
    by_key: dict[str, Job] = {}
    for job in jobs:
        by_key.setdefault(job.key, job)
    again = len(jobs) - len(by_key)
    if again and on_remark is not None:
        count = {key: sum(job.key == key for job in jobs) for key in by_key}
        names = ", ".join(by_key[key].label for key in by_key if count[key] > 1)
        on_remark(f"Listed more than once with the same settings, measured once: {names}.")
    return [*by_key.values()]


def out_of_reach(jobs: Sequence[Job]) -> list[str]:
    """Return the ids of hub models that are not in this machine's cache while the hub cannot be asked for them."""
    from huggingface_hub import constants

    absent = {}
    for job in jobs:
        hub = resolve_model(job.model.id).kind == "hub"
        if hub and (job.model_version is None or constants.HF_HUB_OFFLINE):
            absent[job.model.id] = cached_model(job.model.id, job.model_version or job.model.revision) is None
    return [name for name, is_absent in absent.items() if is_absent]


def require_reachable(absent: Sequence[str]) -> None:
    """Refuse the models of `out_of_reach`, if there are any.

    Raises:
        InputError: naming them.
    """
    if absent:
        raise InputError(
            f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} neither bundled, nor a folder, nor in the "
            "hub's cache on this machine, and the hub cannot be reached (or HF_HUB_OFFLINE is set): check the name, or "
            "connect for a first download."
        )


def _resolved(measurement: Measurement) -> Measurement:
    """Fill in what is left to the default, so that a later default gives another key.

    Raises:
        InputError: if there is no such estimator or it does not take such options.
    """
    from estimators import DEFAULT_RESOLUTIONS
    from proxy.measurement.names import check_options, estimator_names

    names = estimator_names(measurement.estimator)
    check_options(names, measurement.options)
    if "sample-propagation" in names:
        return measurement.model_copy(update={"resolutions": measurement.resolutions or tuple(DEFAULT_RESOLUTIONS)})
    if measurement.resolutions:
        raise InputError(
            f"{measurement.estimator} has no resolutions; leave measurement.resolutions out, or set "
            "measurement.estimator: sample-propagation."
        )
    return measurement
