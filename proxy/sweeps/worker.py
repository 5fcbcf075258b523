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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from estimators.base import EmergenceError, InputError
from estimators.contracts.controls import CONTROLS, with_controls
from estimators.contracts.results_folder import blank_record
from extraction.versions import COMMIT
from proxy.sweeps.jobs import Job
from proxy.sweeps.store.provenance import accelerators
from proxy.sweeps.store.results import to_parquet, windows_to_parquet

if TYPE_CHECKING:
    import pandas as pd

    from extraction import LanguageModel, Windows

Trouble = Literal["memory", "again", None]
LOG_CHARACTERS = 20_000  # of a job's output, kept in its record
FULL = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")  # torch on CPU; cuBLAS without room for its workspace


@dataclass(frozen=True)
class Outcome:
    """What became of one job.

    Attributes:
        table: its rows of the emergence table as parquet; None if it failed.
        record: what is written beside the table, see `estimators.contracts.results_folder`.
        trouble: why a failure may pass when tried again: more `memory`, or just `again` (network, files).
        windows: the values of its windows as parquet, where its estimator has them.
    """

    table: bytes | None
    record: dict[str, Any]
    trouble: Trouble = None
    windows: bytes | None = None


class Worker:
    """Measures jobs one after another, keeping the last model loaded."""

    def __init__(self, threads: int = 1, gpus: float = 0) -> None:
        self.threads = threads
        self.gpus = gpus
        self._steps = (0, 0)
        self._parts = (0, 1)  # of the model and its controls, which one is measured, and how many
        self._loaded_key: str | None = None
        self._model: LanguageModel | None = None

    def where(self) -> dict[str, Any]:
        """Say on which node, machine and as which process this worker runs."""
        ray = sys.modules.get("ray")
        node = ray.get_runtime_context().get_node_id() if ray is not None and ray.is_initialized() else None
        return {"node": node, "host": socket.gethostname(), "pid": os.getpid()}

    def steps(self) -> tuple[int, int]:
        """Say how far the running job is: steps done, and in all (0 while it is loading)."""
        return self._steps

    def run(self, job: Job) -> Outcome:
        """Measure one job; a failure is an outcome with its traceback, not an exception."""
        started = datetime.now(UTC)
        clock = time.perf_counter()
        record = record_of(job) | {
            "started": started.isoformat(timespec="seconds"),
            "host": socket.gethostname(),
        }
        output = io.StringIO()
        table: bytes | None = None
        windows: bytes | None = None
        trouble: Trouble = None
        forget_peaks()
        try:
            with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
                table, windows = self._measure(job, record)
        except Exception as error:  # the sweep goes on; the record says what happened
            trouble = trouble_of(error)
            record |= {
                "error_type": type(error).__name__,
                "error": str(error) or type(error).__name__,
                "traceback": traceback.format_exc(),
            }
            self._unload()
        record["seconds"] = round(time.perf_counter() - clock, 3)
        record["log"] = output.getvalue()[-LOG_CHARACTERS:]
        record |= memory_peaks()
        return Outcome(table, record, trouble, windows)

    def _measure(self, job: Job, record: dict[str, Any]) -> tuple[bytes, bytes | None]:
        import torch

        from extraction import CorpusOptions, windows
        from extraction.corpora.loading import check_corpus
        from extraction.corpora.token_windows import fewer_windows
        from extraction.models.load import model_tokenizer
        from proxy.measurement.names import estimator_names, is_output
        from proxy.measurement.output import output_windows

        torch.set_num_threads(self.threads)
        self._steps = (0, 0)
        options = CorpusOptions(
            at=job.corpus.at,
            demonstration=job.corpus.demonstration,
            column=job.corpus.column,
            revision=job.corpus_version if COMMIT.fullmatch(job.corpus_version) else None,
        )
        follows = any(map(is_output, estimator_names(job.measurement.estimator)))
        if self._loaded_key != job.load_key:  # before the weights are read
            tokenizer = model_tokenizer(
                job.model.id, revision=_revision(job), trust_remote_code=job.model.trust_remote_code
            )
            check_corpus(job.corpus.source, tokenizer, tokens=job.corpus.tokens, follows=follows, options=options)
        model = self._load(job)
        record |= {"revision": model.revision, "family": model.family, "parameters": model.parameters}
        record |= {"device": str(model.device), "gpus": accelerators()}
        make = output_windows if follows else windows
        chosen = make(
            job.corpus.source,
            model.tokenizer,
            tokens=job.corpus.tokens,
            count=job.corpus.windows,
            seed=job.seed,
            prefix=model.prefix,
            options=options,
        )
        fewer = fewer_windows(chosen, job.corpus.windows)
        if fewer:
            print(fewer)
            record |= {"remark": fewer}
        record |= {"corpus": job.corpus_name, "corpus_hash": chosen.hash, "windows": int(chosen.weights.sum())}
        by_window: list[pd.DataFrame] = []
        self._parts = 0, 3 if job.controls else 1
        frame = self._bits(job, model, chosen, by_window.append)
        if job.controls:
            frame = self._with_controls(job, model, chosen, frame, record)
        windows_read = windows_to_parquet(by_window[0]) if by_window else None
        return to_parquet(frame.assign(model=job.model_name, corpus=job.corpus_name)), windows_read

    def _with_controls(
        self, job: Job, model: LanguageModel, chosen: Windows, frame: pd.DataFrame, record: dict[str, Any]
    ) -> pd.DataFrame:
        """Put both controls beside the model's rows; one that cannot be had is said in the record."""
        from extraction import random_twin

        found: dict[str, pd.DataFrame] = {}
        for number, name in enumerate(CONTROLS, 1):
            self._parts = number, self._parts[1]
            try:
                if name == "twin":
                    found[name] = self._bits(job, random_twin(model, seed=job.seed), chosen)
                else:
                    found[name] = self._bits(job, model, chosen.shuffled(job.seed))
            except InputError as error:  # such as a quantised model, which has no twin
                record["remark"] = " ".join(filter(None, [record.get("remark"), f"Control {name} not run: {error}"]))
                print(record["remark"])
        return with_controls(frame, **found)

    def _bits(
        self, job: Job, model: LanguageModel, chosen: Windows, on_windows: Callable[[pd.DataFrame], None] | None = None
    ) -> pd.DataFrame:
        from proxy.measurement.table import Listeners, Propagation, measure

        settings = job.measurement
        return measure(
            model,
            chosen,
            estimator=settings.estimator,
            options=settings.options,
            propagation=Propagation(
                resolutions=settings.resolutions, queries=settings.queries, project=settings.project
            ),
            seed=job.seed,
            budget=job.resources.budget,
            listeners=Listeners(
                notice=print,  # into the log of the job
                windows=on_windows,
                progress=self._report,
            ),
        )

    def _report(self, done: int, total: int) -> None:
        part, parts = self._parts
        self._steps = (part * total + done, parts * total)

    def _load(self, job: Job) -> LanguageModel:
        from extraction import load_model
        from proxy.measurement.prefix import with_prefix

        if self._loaded_key == job.load_key and self._model is not None:
            return self._model
        self._unload()
        self._model = load_model(
            job.model.id,
            revision=_revision(job),
            dtype=job.model.dtype,
            device="spread" if self.gpus > 1 else "auto" if self.gpus else "cpu",
            quantization=job.model.quantization,
            trust_remote_code=job.model.trust_remote_code,
            allow_pickle=job.model.allow_pickle,
        )
        self._model = with_prefix(self._model, job.measurement.prefix)
        self._loaded_key = job.load_key
        return self._model

    def _unload(self) -> None:
        """Give the loaded model's memory back before another takes it."""
        self._model, self._loaded_key = None, None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def _revision(job: Job) -> str | None:
    """The commit of a hub model where it is known."""
    return job.model_version if COMMIT.fullmatch(job.model_version or "") else job.model.revision


def record_of(job: Job) -> dict[str, Any]:
    """Return the record of a job of which nothing else is known yet."""
    return blank_record() | {
        "model": job.model_name,
        "revision": job.model.revision,
        "parameters": job.model.parameters,
        "corpus": job.corpus_name,
        "config": job.settings,
    }


def failure(job: Job, kind: str, reason: str) -> dict[str, Any]:
    """Return the record of a job whose worker could not write one."""
    return record_of(job) | {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "error_type": kind,
        "error": reason.split("\n")[0],
        "traceback": reason,
    }


def trouble_of(error: BaseException) -> Trouble:
    """Say whether trying again may help: memory, network and files can recover, wrong input cannot."""
    chain: BaseException | None = error
    while chain is not None:  # a loader may have put it into words
        if isinstance(chain, MemoryError) or type(chain).__name__ == "OutOfMemoryError":
            return "memory"
        if isinstance(chain, RuntimeError) and any(words in str(chain) for words in FULL):
            return "memory"
        chain = chain.__cause__
    if isinstance(error, (EmergenceError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)):
        return None
    return "again" if isinstance(error, OSError) or type(error).__name__ == "HfHubHTTPError" else None


def forget_peaks() -> None:
    """Let the next `memory_peaks` start from now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def memory_peaks() -> dict[str, float | None]:
    """Return the largest main memory, and GPU memory of all devices together, since `forget_peaks`, in GiB."""
    torch = sys.modules.get("torch")
    on_gpu: float | None = None
    if torch is not None and torch.cuda.is_available():
        each = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
        on_gpu = round(sum(each) / 2**30, 3)
    return {"peak_memory_gb": round(_peak_resident() / 2**30, 3), "peak_gpu_gb": on_gpu}


def _peak_resident() -> int:
    """Return the peak in bytes: since the last reset on Linux, of the process' life elsewhere."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024  # macOS counts in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
