"""What one worker of a sweep does: load a model once and measure its corpora; knows nothing of Ray."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import platform
import resource
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from estimators.base import EmergenceError
from proxy.identity import COMMIT
from proxy.jobs import Job
from proxy.results import to_parquet

if TYPE_CHECKING:
    from extraction import LanguageModel

LOG_CHARACTERS = 20_000  # of a job's output, kept in its record


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        table: its rows of the emergence table as parquet; None if it failed.
        record: what is written beside the table, see `proxy.results`.
        passing: whether a failure may pass when tried again (memory, network, storage).
    """

    table: bytes | None
    record: dict[str, Any]
    passing: bool = False


class Worker:
    """Measures jobs one after another, keeping the last model loaded."""

    def __init__(self, threads: int = 1, gpus: float = 0) -> None:
        self.threads = threads
        self.gpus = gpus
        self.progress = (0, 0)  # steps of the running job: done, total
        self._loaded_key: str | None = None
        self._model: LanguageModel | None = None

    def where(self) -> dict[str, Any]:
        """Say on which machine and as which process this worker runs."""
        return {"host": socket.gethostname(), "pid": os.getpid()}

    def run(self, job: Job) -> Outcome:
        """Measure one job; a failure is an outcome with its traceback, not an exception."""
        started = datetime.now(UTC)
        clock = time.perf_counter()
        record: dict[str, Any] = {
            "model": job.model_name,
            "revision": job.model.revision,
            "family": None,
            "parameters": job.model.parameters,
            "corpus": job.corpus_name,
            "corpus_hash": None,
            "config": job.settings,
            "windows": None,
            "seconds": None,
            "started": started.isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "error_type": None,
            "error": None,
            "traceback": None,
        }
        output = io.StringIO()
        table: bytes | None = None
        passing = False
        try:
            with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
                table = self._measure(job, record)
        except Exception as error:  # the sweep goes on; the record says what happened
            passing = is_passing(error)
            record |= {
                "error_type": type(error).__name__,
                "error": str(error) or type(error).__name__,
                "traceback": traceback.format_exc(),
            }
            self._unload()
        record["seconds"] = round(time.perf_counter() - clock, 3)
        record["log"] = output.getvalue()[-LOG_CHARACTERS:]
        record["peak_memory_gb"] = peak_memory_gb()
        return Outcome(table, record, passing)

    def _measure(self, job: Job, record: dict[str, Any]) -> bytes:
        import torch

        from extraction import windows
        from proxy.measure import measure

        torch.set_num_threads(self.threads)
        self.progress = (0, 0)
        model = self._load(job)
        record |= {"revision": model.revision, "family": model.family, "parameters": model.parameters}
        record["device"] = str(model.device)
        chosen = windows(
            job.corpus.source,
            model.tokenizer,
            tokens=job.corpus.tokens,
            count=job.corpus.windows,
            seed=job.seed,
            at=job.corpus.at,
            demonstration=job.corpus.demonstration,
            column=job.corpus.column,
            prefix=model.prefix,
        )
        record |= {"corpus": chosen.corpus, "corpus_hash": chosen.hash, "windows": int(chosen.weights.sum())}
        settings = job.measurement
        frame = measure(
            model,
            chosen,
            estimator=settings.estimator,
            queries=settings.queries,
            project=settings.project,
            seed=job.seed,
            progress=self._told,
            **({"resolutions": settings.resolutions} if settings.resolutions else {}),
        )
        return to_parquet(frame.assign(model=job.model_name))

    def _told(self, done: int, total: int) -> None:
        self.progress = (done, total)

    def _load(self, job: Job) -> LanguageModel:
        from extraction import load_model
        from extraction.twin import random_twin

        if self._loaded_key == job.load_key and self._model is not None:
            return self._model
        self._unload()
        commit = job.model_version if COMMIT.fullmatch(job.model_version or "") else None
        several_gpus = self.gpus > 1
        self._model = load_model(
            job.model.id,
            revision=commit or job.model.revision,
            dtype=job.model.dtype,
            device="auto" if self.gpus else "cpu",
            device_map="auto" if several_gpus else None,
            quantization=job.model.quantization,
            trust_remote_code=job.model.trust_remote_code,
            allow_pickle=job.model.allow_pickle,
        )
        if job.control == "random-weights":
            self._model = random_twin(self._model, seed=job.seed)
        self._loaded_key = job.load_key
        return self._model

    def _unload(self) -> None:
        """Give the loaded model's memory back before another takes it."""
        self._model, self._loaded_key = None, None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help: memory, network and files can recover, wrong input cannot."""
    if isinstance(error, EmergenceError):
        return False
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return False
    if isinstance(error, (OSError, MemoryError)):
        return True
    return type(error).__name__ in {"OutOfMemoryError", "HfHubHTTPError", "AcceleratorError"}


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GiB (Linux counts in KiB, macOS in bytes)."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)
