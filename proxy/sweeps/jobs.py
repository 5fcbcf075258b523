"""The jobs of a sweep: one model on one corpus each, keyed by all that determines the result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from estimators.base import InputError
from estimators.contracts.conventions import SHUFFLED, TWIN
from estimators.contracts.results_folder import RESULT_VERSION
from proxy.schemas import EMERGENCE
from proxy.sweeps.config import Control, Corpus, Measurement, Model, Resources, SweepConfig
from proxy.sweeps.identity import corpus_versions, model_versions


@dataclass(frozen=True)
class Job:
    """One model on one corpus.

    Attributes:
        model: what to load.
        model_version: hash of a local model's files, or the commit of a hub model; None where not known.
        corpus: what to measure it on.
        corpus_version: hash of the corpus' content, or the commit of a data set of the hub.
        measurement: how bits are estimated, with its resolutions filled in.
        control: None for the model itself.
        seed: the sweep's.
        resources: what its worker holds; of the sweep where the model says nothing. They do not change the result.
    """

    model: Model
    model_version: str | None
    corpus: Corpus
    corpus_version: str
    measurement: Measurement
    control: Control | None = None
    seed: int = 0
    resources: Resources = field(default_factory=Resources)

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines the result, as JSON types; what only decides where it runs is left out."""
        model = self.model.model_dump(mode="json", exclude={"parameters", "resources"})
        return {
            "model": model | {"revision": None if self.model.revision == "main" else self.model.revision},
            "model_version": self.model_version,
            "corpus": self.corpus.model_dump(mode="json"),
            "corpus_version": self.corpus_version,
            "measurement": self.measurement.model_dump(mode="json"),
            "control": self.control,
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
    def model_name(self) -> str:
        """The model's name in tables: its id, and for a twin what was done to it."""
        return f"{self.model.id}{TWIN}" if self.twin else self.model.id

    @property
    def twin(self) -> bool:
        """Whether the model is its random-weights twin."""
        return self.control == "random-weights"

    @property
    def corpus_name(self) -> str:
        """The corpus' name in tables: a file goes by its own name, without its folder; shuffled windows are marked."""
        source = self.corpus.source
        name = source if source.startswith(("hf:", "list:")) else Path(source).name
        return f"{name}{SHUFFLED}" if self.control == "shuffled" else name

    @property
    def label(self) -> str:
        """What a person calls the job."""
        return f"{self.model_name} on {self.corpus_name}"

    @cached_property
    def load_key(self) -> str:
        """Equal for jobs that one loading of the model serves."""
        return json.dumps([self.settings["model"], self.model_version, self.twin, self.seed], sort_keys=True)


def _hash(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_jobs(config: SweepConfig) -> list[Job]:
    """Expand a config into its jobs, model by model in the order of the config.

    Raises:
        InputError: if a model or corpus does not exist, or two jobs would be the same work.
    """
    measurement = _resolved(config.measurement)
    corpora = list(zip(config.corpora, corpus_versions([corpus.source for corpus in config.corpora]), strict=True))
    controls = sorted(config.controls, key=lambda control: control == "random-weights")  # one loading's stand together
    jobs = [
        Job(
            model,
            version,
            corpus,
            content,
            measurement,
            control,
            config.seed,
            (model.resources or Resources()).over(config.resources),
        )
        for model, version in zip(config.models, model_versions(config.models), strict=True)
        for control in (None, *controls)
        for corpus, content in corpora
    ]
    by_key: dict[str, Job] = {}
    for job in jobs:
        if job.key in by_key:
            raise InputError(f"{job.label} is listed twice in {config.name} with the same settings; remove one.")
        by_key[job.key] = job
    return jobs


def require_reachable(jobs: list[Job]) -> None:
    """Refuse models that cannot be loaded without the hub, where the hub is switched off.

    Raises:
        InputError: naming them.
    """
    from huggingface_hub import constants

    absent = list(dict.fromkeys(job.model.id for job in jobs if job.model_version is None))
    if constants.HF_HUB_OFFLINE and absent:
        raise InputError(
            f"HF_HUB_OFFLINE is set, but {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} neither bundled, "
            "nor a folder, nor in the hub's cache on this machine; check the name, or unset it for a first download."
        )


def _resolved(measurement: Measurement) -> Measurement:
    """Fill in what is left to the default, so that a later default gives another key.

    Raises:
        InputError: if there is no such estimator or it does not take such options.
    """
    from estimators import DEFAULT_RESOLUTIONS
    from estimators import estimator as known_estimator

    if measurement.estimator == "sample-propagation":
        if measurement.options:
            raise InputError("measurement.options are for trained estimators; sample-propagation takes none.")
        return measurement.model_copy(update={"resolutions": measurement.resolutions or tuple(DEFAULT_RESOLUTIONS)})
    known_estimator(measurement.estimator, **measurement.options)
    if measurement.resolutions:
        raise InputError(f"{measurement.estimator} has no resolutions; leave measurement.resolutions out.")
    return measurement
