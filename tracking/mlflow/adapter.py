"""The MLflow adapter of `Tracker`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from estimators.base import InputError
from estimators.contracts.secrets import masked
from tracking.mlflow.store import (
    ARTIFACTS,
    DATABASES,
    clear_errors,
    open_store,
    request_timeout,
    sqlite_path,
    store_uri,
)
from tracking.mlflow.tracker import DataSource, Known, Point

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

KEY, SWEEP, DIGEST = "emergence.key", "emergence.sweep", "emergence.digest"
METRICS_PER_BATCH, OTHERS_PER_BATCH = 1000, 100  # MLflow's limits of one log_batch
WRITERS = 4  # threads that write to a server at once; a database file takes one writer at a time anyway
RIVALS = 10  # times that another writer may be first with one of a run's datasets
LONGEST_PARAM, LONGEST_TAG = 6000, 8000  # MLflow's limits, in characters

# The view that answers the question, in MLflow's own words; `emergence ui` opens the runs by it. A run's name tells
# model and corpus; few and short columns, so that none lies beyond the edge of a screen.
VIEW = "emergence"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
COLUMNS = (
    "metrics.`E`",
    "metrics.`E_error`",
    "metrics.`E_twin`",
    "tags.`verdict`",
    "tags.`sweep`",
)
VIEW_STATE = {
    "selectedColumns": COLUMNS,
    "orderByKey": "metrics.`E`",
    "orderByAsc": False,
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "viewMaximized": True,
}
EXPERIMENT_TAGS = {
    VIEW_TAG: json.dumps(VIEW_STATE),
    "mlflow.experimentKind": "custom_model_development",  # runs and charts first, not MLflow's pages for chat logs
    "mlflow.note.content": "Information emergence of language models (arXiv 2405.12617), measured with "
    "emergence-proxy. A run per sweep, with a run per model and corpus below it; open a sweep for its summary; its "
    "report and figures are among its artifacts. Filter by tags: `tags.family = 'gpt2' and tags.corpus = 'animal'`.",
}


class MlflowTracker:
    """Writes runs to an MLflow server or database.

    Args:
        uri: tracking URI; see `tracking.mlflow.store.store_uri` for the default.
        experiment: name of the experiment, made if it is not there.

    Raises:
        InputError: if the store or the experiment cannot be used.
    """

    def __init__(self, uri: str | None = None, experiment: str = "emergence") -> None:
        self.uri = store_uri(uri)
        self.client = open_store(self.uri, create=True)
        self.experiment = masked(experiment)
        self.writers = 1 if self._direct else WRITERS
        self._fresh: set[str] = set()  # runs without parameters yet
        self._places: dict[str, str] = {}  # where the artifacts of runs begun here go
        with clear_errors(self.uri, starting=True):
            self.experiment_id = self._experiment_id(self.experiment)

    def _experiment_id(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if not name.strip():
            raise InputError("An experiment needs a name; give one with --experiment.")
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, self._artifacts(), EXPERIMENT_TAGS))
            except MlflowException:  # another driver made it meanwhile
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise InputError(
                f"The experiment {name} was deleted in {masked(self.uri)}; restore it there "
                f"(mlflow experiments restore -x {found.experiment_id}) or choose another with --experiment."
            )
        if self._direct and found.artifact_location.startswith("mlflow-artifacts:"):
            raise InputError(
                f"The experiment {name} was made through a server, which alone can write its artifacts; give the "
                "server's address with --tracking-uri, or choose another with --experiment."
            )
        ours = {name: value for name, value in EXPERIMENT_TAGS.items() if name == VIEW_TAG or name not in found.tags}
        for tag, value in ours.items():
            if found.tags.get(tag) == value:
                continue
            self.client.set_experiment_tag(found.experiment_id, tag, value)
        return str(found.experiment_id)

    @property
    def _direct(self) -> bool:
        return self.uri.startswith(DATABASES)

    def _artifacts(self) -> str | None:
        if not self._direct:
            return None  # the server's own choice
        path = sqlite_path(self.uri)
        return ((path.parent if path else Path.cwd()) / ARTIFACTS).absolute().as_uri()

    def known(self, sweep: str) -> dict[str, Known]:
        """Return the runs of a sweep, by key; runs deleted in the UI are not there.

        A request whose answer was lost may have made a run twice. One is kept, a complete one if there is, and the
        others are deleted as in the UI.
        """
        found: dict[str, Known] = {}
        for key, run in self._search(f"tags.`{SWEEP}` = '{sweep}'"):
            kept = found.setdefault(key, run)
            if kept is not run:
                spare = run if kept.digest or not run.digest else kept
                found[key] = kept if spare is run else run
                self.drop(spare.run_id)
        return found

    def _search(self, condition: str) -> Iterator[tuple[str, Known]]:
        """Yield key and run of what a condition finds, the first begun first."""
        token = None
        with clear_errors(self.uri):
            while True:
                page = self.client.search_runs(
                    [self.experiment_id],
                    condition,
                    max_results=1000,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
                for run in page:
                    tags = run.data.tags
                    yield tags.get(KEY, ""), Known(run.info.run_id, tags.get(DIGEST))
                token = page.token
                if not token:
                    return

    def start(self, key: str, name: str, *, sweep: str, parent: str | None, started: int) -> str:
        """Open a run."""
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {KEY: key, SWEEP: sweep} | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        asked = time.monotonic()
        with clear_errors(self.uri):
            run = self.client.create_run(
                self.experiment_id, start_time=started or None, tags=tags, run_name=masked(name)
            )
        run_id = str(run.info.run_id)
        if time.monotonic() - asked > request_timeout():  # MLflow asked again and may have made two runs
            same = list(self._search(f"tags.`{SWEEP}` = '{sweep}' and tags.`{KEY}` = '{key}'"))
            for _, other in same:
                if other.run_id != run_id:
                    self.drop(other.run_id)
        self._fresh.add(run_id)
        self._places[run_id] = str(run.info.artifact_uri)
        return run_id

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        sources: Sequence[DataSource] = (),
        at: int = 0,
    ) -> None:
        """Add to a run, in as few requests as MLflow's limits allow."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

        metrics = iter([Metric(p.key, p.value, at, p.step) for p in points])
        names = iter([Param(k, masked(v)[:LONGEST_PARAM]) for k, v in self._unset(run_id, params or {}).items()])
        marks = iter([RunTag(k, masked(v)[:LONGEST_TAG]) for k, v in (tags or {}).items() if v])
        with clear_errors(self.uri):
            while True:
                some = list(islice(names, OTHERS_PER_BATCH)), list(islice(marks, OTHERS_PER_BATCH))
                many = list(islice(metrics, METRICS_PER_BATCH - sum(map(len, some))))
                if not any((*some, many)):
                    break
                self.client.log_batch(run_id, metrics=many, params=some[0], tags=some[1], synchronous=True)
            if sources:
                inputs = [
                    DatasetInput(
                        Dataset(
                            name=source.name[:500],
                            digest=source.digest[:36],
                            source_type="local",
                            source=json.dumps({"uri": source.source}),
                        ),
                        [InputTag("mlflow.data.context", source.context)],
                    )
                    for source in sources
                ]
                self._log_inputs(run_id, inputs)

    def _log_inputs(self, run_id: str, inputs: list[DatasetInput]) -> None:
        """Note the datasets of a run; MLflow fails when two runs bring the same new one at the same moment."""
        from mlflow.exceptions import MlflowException

        for left in reversed(range(RIVALS)):
            try:
                self.client.log_inputs(run_id, inputs)
                return
            except MlflowException as error:
                if not left or "unique" not in str(error).lower():
                    raise

    def _unset(self, run_id: str, params: Mapping[str, str]) -> Mapping[str, str]:
        """Leave out the parameters a run has: MLflow takes a second value for an error."""
        if not params or run_id in self._fresh:
            self._fresh.discard(run_id)
            return params
        with clear_errors(self.uri):
            there = self.client.get_run(run_id).data.params
        return {name: value for name, value in params.items() if name not in there}

    def drop(self, run_id: str) -> None:
        """Delete a run, as in the UI: it can be restored there."""
        with clear_errors(self.uri):
            self.client.delete_run(run_id)

    def upload(self, run_id: str, folder: Path) -> None:
        """Keep all files of `folder` with the run."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = self._places.pop(run_id, None)
        with clear_errors(self.uri):
            if place is None:
                self.client.log_artifacts(run_id, str(folder))
            else:  # the client would ask the server for the place first
                get_artifact_repository(place, tracking_uri=self.uri).log_artifacts(str(folder))

    def end(self, run_id: str, *, digest: str, failed: bool, ended: int) -> None:
        """Mark the run as complete."""
        with clear_errors(self.uri):
            self.client.set_terminated(run_id, "FAILED" if failed else "FINISHED", end_time=ended or None)
            self.client.set_tag(run_id, DIGEST, digest)
