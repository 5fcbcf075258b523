"""Extraction where disk or memory end: spilled states, batches halved, nothing left behind by an interruption."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from estimators.base import EmergenceError, InputError
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel
from extraction.states.budget import StateBudget
from extraction.states.extracting import extract, spill_notice, spilled_bytes
from extraction.states.forward import run_batches
from extraction.states.spill import StateStore, described
from tests.extraction.states.state_checks import CLOSE, everything


def open_files(folder: Path) -> int:
    """How many files of `folder` this process holds open, named or not."""
    count = 0
    for handle in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the handle of the listing itself
            count += str(folder) in os.readlink(f"/proc/self/fd/{handle}")
    return count


def test_spilled_states_are_the_same(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    small = 2e-4  # GB: 200 kB
    expected = spilled_bytes(gpt2, found, budget=StateBudget(states_gb=small))
    assert expected == 4 * 32 * 3 * (5 * len(found) + len(found.distinct_tokens()[0]))
    assert spilled_bytes(gpt2, found) == 0
    with (
        extract(gpt2, found) as memory,
        extract(gpt2, found, budget=StateBudget(states_gb=small, spill_dir=tmp_path)) as disk,
    ):
        assert (memory.spilled_bytes, disk.spilled_bytes) == (0, expected)
        torch.testing.assert_close(everything(disk), everything(memory), **CLOSE)
        torch.testing.assert_close(disk.micro_leaving(2), memory.micro_leaving(2), **CLOSE)
        assert disk.likelihoods is not None
        assert memory.likelihoods is not None
        torch.testing.assert_close(disk.nll_bits, memory.nll_bits, equal_nan=True, **CLOSE)
        assert list(tmp_path.iterdir()) == []  # the file has no name
        assert open_files(tmp_path) == 2
    assert open_files(tmp_path) == 0
    with pytest.raises(EmergenceError, match="are closed"):
        disk.leaving(0, 1)
    with pytest.raises(EmergenceError, match="are closed"):
        memory.leaving(0, 1)


def test_spilling_is_bounded(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"more than the 0\.0001 GB allowed; raise spill_gb or states_gb"):
        extract(gpt2, found, budget=StateBudget(states_gb=1e-4, spill_dir=tmp_path, spill_gb=1e-4))
    with pytest.raises(InputError, match="for spilled states does not exist"):
        extract(gpt2, found, budget=StateBudget(states_gb=1e-4, spill_dir=tmp_path / "none"))


def test_what_will_be_spilled_is_said(gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any) -> None:
    assert spill_notice(gpt2, found) == ""
    size = spilled_bytes(gpt2, found, budget=StateBudget(states_gb=1e-4)) / 1e9
    notice = spill_notice(gpt2, found, budget=StateBudget(states_gb=1e-4, spill_dir=tmp_path))
    assert f"{size:.3g} GB of states of {gpt2.name} will be spilled to {tmp_path}" in notice


def test_a_spill_folder_in_main_memory_is_named_as_such() -> None:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    in_memory = [Path(mount) for mount, kind in mounts if kind == "tmpfs" and mount.endswith("/shm")]
    if not in_memory:
        pytest.skip("no tmpfs here")
    assert "lies in main memory (tmpfs), so spilling there saves no memory; choose another" in described(in_memory[0])
    assert described(Path("/proc")) == "/proc"
    assert described(Path()).startswith(str(Path.cwd()))  # "." says little to who reads a log


def test_a_system_that_cannot_reserve_files(
    gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    with (
        extract(gpt2, found) as memory,
        extract(gpt2, found, budget=StateBudget(states_gb=2e-4, spill_dir=tmp_path)) as disk,
    ):
        torch.testing.assert_close(everything(disk), everything(memory), **CLOSE)


def test_a_full_disk_is_known_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"States of 400000\.0 GB are to be spilled to .* choose another spill_dir"):
        StateStore((1, 1, 10**9, 10**5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EmergenceError, match="Spilling the states failed: No space left on device; choose another"):
        extract(gpt2, found, budget=StateBudget(states_gb=1e-4, spill_dir=tmp_path))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"has no room for .* GB of spilled states \(No space left on device\)"):
        extract(gpt2, found, budget=StateBudget(states_gb=1e-4, spill_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == 0


INTERRUPTED = """
import sys
from pathlib import Path
from extraction import StateBudget, extract, load_model, windows
model = load_model(sys.argv[1])
found = windows("animal", model.tokenizer, count=20_000)
def progress(done, total):
    print(done, flush=True)
extract(model, found, budget=StateBudget(states_gb=0.01, spill_dir=Path(sys.argv[2])), progress=progress)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_nothing_is_left_behind_by_an_interruption(gpt2_folder: Path, tmp_path: Path, how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, gpt2_folder, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # under way, its file reserved
        process.send_signal(how)
        process.wait(timeout=60)
    assert process.returncode == -how
    assert list(tmp_path.iterdir()) == []


def out_of_memory_above(model: LanguageModel, rows: int, error: Callable[[str], Exception]) -> tuple[list[int], Any]:
    """Let the last block fail as an allocator does on batches of more than `rows`; returns the batches that ran."""
    ran: list[int] = []

    def fail(module: Any, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > rows:
            raise error("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")
        ran.append(len(args[0]))

    return ran, model.blocks[-1].register_forward_pre_hook(fail)


def cublas(text: str) -> Exception:
    return RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError, MemoryError, cublas])
def test_a_batch_too_large_is_halved(gpt2: LanguageModel, found: Windows, error: Callable[[str], Exception]) -> None:
    with extract(gpt2, found) as states:
        expected = everything(states)
    ran, handle = out_of_memory_above(gpt2, 10, error)
    try:
        with extract(gpt2, found) as states:
            torch.testing.assert_close(everything(states), expected, **CLOSE)
    finally:
        handle.remove()
    assert max(ran) <= 10
    assert sum(ran) == len(found) + len(found.distinct_tokens()[0])  # none lost, none counted twice


STARVED = """
import resource
import numpy as np
from extraction import StateBudget, extract, load_model, windows
from extraction.models import batches
model = load_model("gpt2-90k", device="cpu")
found = windows("animal", model.tokenizer, count=20_000)
with extract(model, found.select(np.arange(50))):
    pass  # what libraries take once is taken
batches.BATCH_TOKENS = batches.CPU_BYTES = batches.WIDEST_BYTES = 10**12
rows = []
model.blocks[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000,) * 2)
with extract(model, found, budget=StateBudget(states_gb=64.0)) as states:
    assert len(states.leaving(3, 10)) == 20_000
    assert not states.nll_bits[:, 1:].isnan().any()
print(max(rows), rows[-1])
"""


@pytest.mark.slow
def test_memory_that_really_runs_out() -> None:
    done = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    largest, last = map(int, done.stdout.split())
    assert largest > 4 * last  # halved at least twice


def test_no_memory_even_for_one(gpt2: LanguageModel, found: Windows) -> None:
    _, handle = out_of_memory_above(gpt2, 0, MemoryError)
    try:
        with pytest.raises(EmergenceError, match="out of memory on cpu with a single sequence of 5 tokens"):
            extract(gpt2, found)
    finally:
        handle.remove()


def test_another_error_is_not_taken_for_lack_of_memory(gpt2: LanguageModel, found: Windows) -> None:
    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("a bug")

    handle = gpt2.blocks[0].register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="a bug"):
            list(run_batches(gpt2, torch.from_numpy(found.tokens), lambda p, h: h, prefix=(), batch=4))
    finally:
        handle.remove()
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in gpt2.blocks)
