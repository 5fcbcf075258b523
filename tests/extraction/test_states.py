"""Extracted states against states hooked, normalised and projected by hand; memory, disk and interruption."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.base import EmergenceError, InputError
from extraction.corpora import text_windows, windows
from extraction.drawn import Windows
from extraction.forward import run_batches
from extraction.models import LanguageModel, load_model
from extraction.passes import PILOT
from extraction.spill import StateStore, described
from extraction.states import States, extract, spill_notice, spilled_bytes
from extraction.statistics import Statistics, projection

TEXT = "the cat saw a dog, the fox and the horse. a dog ran, a cow did not. the bear sat with a red fish and a bird."
# float32 sums over at most 32 features and a few thousand rows, states of order 1: errors of order 1e-6.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def found(tokenizer: Any) -> Windows:
    """Windows of unequal weights, some sharing tokens and prefixes."""
    return text_windows([TEXT, TEXT[10:], TEXT], tokenizer, tokens=5, count=None, at="anywhere")


def by_hand(model: LanguageModel, rows: Tensor) -> list[Tensor]:
    """Every point's states (n, T, width) of all rows in one plain forward pass."""
    points: list[Tensor] = []
    handles = [model.blocks[0].register_forward_pre_hook(lambda m, a: points.append(a[0].double().clone()))]
    for block in model.blocks:
        handles.append(
            block.register_forward_hook(
                lambda m, a, o: points.append((o[0] if isinstance(o, tuple) else o).double().clone())
            )
        )
    with torch.no_grad():
        model.model(rows)
    for handle in handles:
        handle.remove()
    return points


def pooled_by_hand(macro: Tensor, micro: Tensor, found: Windows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each occurrence written out, half the mass on either side."""
    rows = np.repeat(np.arange(len(found)), found.weights.astype(int))
    _, index = found.distinct_tokens()
    macro_all = macro[rows].reshape(-1, macro.shape[-1])
    micro_all = micro[index[rows].reshape(-1), 0]
    mean = (macro_all.mean(0) + micro_all.mean(0)) / 2
    variance = ((macro_all - mean).square().mean(0) + (micro_all - mean).square().mean(0)) / 2
    return mean, variance.sqrt()


def everything(states: States) -> Tensor:
    """All macro states leaving, (L, T, N, k)."""
    blocks, positions = range(states.blocks), range(1, states.positions + 1)
    return torch.stack([torch.stack([states.leaving(b, t) for t in positions]) for b in blocks])


@pytest.mark.parametrize("project", [None, 8])
def test_states_are_z_scored_on_one_scale_and_projected(
    gpt2: LanguageModel, found: Windows, project: int | None
) -> None:
    ids, _ = found.distinct_tokens()
    macro = by_hand(gpt2, torch.from_numpy(found.tokens))
    micro = by_hand(gpt2, torch.from_numpy(ids)[:, None])
    basis = torch.eye(32).double() if project is None else projection(32, project, 3).double()
    with extract(gpt2, found, project=project, entering=True, seed=3) as states:
        assert (states.blocks, states.positions, states.features) == (3, 5, project or 32)
        assert states.statistics.windows == len(found)
        for block in range(3):
            mean, std = pooled_by_hand(macro[block + 1], micro[block + 1], found)
            y, z = ((h - mean) / std @ basis for h in (macro[block + 1], micro[block + 1]))
            for t in range(1, 6):
                torch.testing.assert_close(states.leaving(block, t).double(), y[:, t - 1], **CLOSE)
            torch.testing.assert_close(states.micro_leaving(block).double(), z[:, 0], **CLOSE)
            # The scale is the RMS norm of what is there, centred and pooled alike.
            _, spread = pooled_by_hand(y, z, found)
            assert states.scale(block) == pytest.approx(float(spread.norm()), rel=1e-4)
            if project is None:
                assert states.scale(block) == pytest.approx(np.sqrt(32), rel=1e-4)
        mean, std = pooled_by_hand(macro[0], micro[0], found)
        torch.testing.assert_close(states.entering(0, 2).double(), ((macro[0] - mean) / std @ basis)[:, 1], **CLOSE)
        for block in (1, 2):
            assert torch.equal(states.entering(block, 3), states.leaving(block - 1, 3))
            assert torch.equal(states.micro_entering(block), states.micro_leaving(block - 1))


def test_a_first_token_is_the_same_alone(gpt2: LanguageModel, found: Windows) -> None:
    _, index = found.distinct_tokens()
    with extract(gpt2, found) as states:
        for block in range(3):
            alone = states.micro_leaving(block)[index[:, 0]]
            torch.testing.assert_close(states.leaving(block, 1), alone, **CLOSE)
            assert not torch.allclose(states.leaving(block, 2), states.micro_leaving(block)[index[:, 1]], atol=0.1)


def test_what_the_tokenizer_adds_stands_before_macro_and_micro(
    save_gpt2: Callable[..., Path], bos_tokenizer: Any, tmp_path: Path
) -> None:
    model = load_model(str(save_gpt2(tmp_path / "bos", bos_tokenizer)))
    found = text_windows([TEXT], bos_tokenizer, tokens=5, count=None, at="anywhere")
    assert found.prefix == model.prefix != ()
    start = torch.tensor([found.prefix])
    with extract(model, found, entering=True) as states:
        raw = states.statistics
        ids, _ = found.distinct_tokens()
        for sequences, taken in (
            (found.tokens, lambda block: states.leaving(block, 3)),
            (ids[:, None], states.micro_leaving),
        ):
            hooked = by_hand(model, torch.cat([start.expand(len(sequences), -1), torch.from_numpy(sequences)], dim=1))
            place = 3 if sequences is found.tokens else 1
            for block in range(3):
                wanted = (hooked[block + 1][:, place] - raw.mean[block + 1]) / raw.std[block + 1]
                torch.testing.assert_close(taken(block).double(), wanted, **CLOSE)
        assert states.nll_bits is not None
        assert not states.nll_bits.isnan().any()  # the prefix gives the first token its likelihood


def test_a_constant_feature_stays_zero(gpt2: LanguageModel, found: Windows) -> None:
    same = found.select(np.array([0]))
    same = Windows("x", "text", same.tokens[:, :1], same.weights)
    with extract(gpt2, same) as states:
        assert states.leaving(2, 1).abs().max() < 1e-4
        assert torch.isfinite(states.micro_leaving(0)).all()


def test_the_seed_governs_the_projection_only(gpt2: LanguageModel, found: Windows) -> None:
    with (
        extract(gpt2, found, project=8) as first,
        extract(gpt2, found, project=8) as again,
        extract(gpt2, found, project=8, seed=1) as other,
    ):
        assert torch.equal(everything(first), everything(again))
        assert not torch.allclose(everything(first), everything(other))
        assert torch.equal(first.statistics.mean, other.statistics.mean)


def test_a_projection_is_orthonormal() -> None:
    basis = projection(64, 16, 0).double()
    torch.testing.assert_close(basis.T @ basis, torch.eye(16).double(), rtol=0, atol=1e-6)


def test_statistics_of_another_run_put_text_on_its_scale(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    few = found.select(np.arange(7))
    with extract(gpt2, found, project=8) as reference:
        reference.statistics.save(tmp_path / "statistics.safetensors")
        saved = Statistics.load(tmp_path / "statistics.safetensors")
        assert (saved.features, saved.seed, saved.entering, saved.windows) == (8, 0, False, len(found))
        with extract(gpt2, few, project=8, statistics=saved) as states:
            torch.testing.assert_close(states.leaving(1, 4), reference.leaving(1, 4)[:7], **CLOSE)
            assert states.scale(1) == reference.scale(1)
    with pytest.raises(InputError, match=r"hold 3 points of 32 features projected to 8, but .* projected to 16"):
        extract(gpt2, few, project=16, statistics=saved)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="No statistics of states could be read"):
        Statistics.load(tmp_path / "other.safetensors")


def test_many_windows_take_their_statistics_from_the_first(gpt2: LanguageModel) -> None:
    many = windows("animal", gpt2.tokenizer, tokens=6, count=PILOT + 500)
    pilot = many.select(np.arange(PILOT))
    with extract(gpt2, many, project=None) as states, extract(gpt2, pilot, project=None) as first:
        assert states.statistics.windows == PILOT
        # The tokens alone weigh in by their frequency among all windows, so the two differ slightly.
        torch.testing.assert_close(states.statistics.std, first.statistics.std, rtol=0.02, atol=0)
        ids = many.distinct_tokens()[0]
        raw = by_hand(gpt2, torch.from_numpy(many.tokens))
        for block in range(3):  # every row is written, those of the pilot as the rest
            wanted = (raw[block + 1][:, 5] - states.statistics.mean[block]) / states.statistics.std[block]
            torch.testing.assert_close(states.leaving(block, 6).double(), wanted, **CLOSE)
        assert len(states.micro_leaving(0)) == len(ids) == 17


def test_micro_cost_goes_with_distinct_tokens(gpt2: LanguageModel) -> None:
    rows: list[tuple[int, ...]] = []
    handle = gpt2.blocks[0].register_forward_pre_hook(lambda m, a: rows.append(tuple(a[0].shape[:2])))
    many = windows("animal", gpt2.tokenizer, count=3000)
    with extract(gpt2, many):
        pass
    handle.remove()
    assert sum(n for n, tokens in rows if tokens == 1) == 17  # 16 animals and the comma
    assert sum(n for n, tokens in rows if tokens == 10) == 3000  # and each window once


# ------------------------------------------------------------------------------------------------- memory and disk


def open_files(folder: Path) -> int:
    """How many files of `folder` this process holds open, named or not."""
    count = 0
    for handle in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the handle of the listing itself
            count += str(folder) in os.readlink(f"/proc/self/fd/{handle}")
    return count


def test_spilled_states_are_the_same(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    small = 2e-4  # GB: 200 kB
    expected = spilled_bytes(gpt2, found, memory_gb=small)
    assert expected == 4 * 32 * 3 * (5 * len(found) + len(found.distinct_tokens()[0]))
    assert spilled_bytes(gpt2, found) == 0
    with extract(gpt2, found) as memory, extract(gpt2, found, memory_gb=small, spill_dir=tmp_path) as disk:
        assert (memory.spilled_bytes, disk.spilled_bytes) == (0, expected)
        torch.testing.assert_close(everything(disk), everything(memory), **CLOSE)
        torch.testing.assert_close(disk.micro_leaving(2), memory.micro_leaving(2), **CLOSE)
        assert disk.behaviour is not None
        assert memory.behaviour is not None
        torch.testing.assert_close(disk.nll_bits, memory.nll_bits, equal_nan=True, **CLOSE)
        assert list(tmp_path.iterdir()) == []  # the file has no name
        assert open_files(tmp_path) == 2
    assert open_files(tmp_path) == 0
    with pytest.raises(EmergenceError, match="are closed"):
        disk.leaving(0, 1)
    with pytest.raises(EmergenceError, match="are closed"):
        memory.leaving(0, 1)


def test_spilling_is_bounded(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"more than the 0\.0001 GB allowed; raise spill_gb or memory_gb"):
        extract(gpt2, found, memory_gb=1e-4, spill_dir=tmp_path, spill_gb=1e-4)
    with pytest.raises(InputError, match="for spilled states does not exist"):
        extract(gpt2, found, memory_gb=1e-4, spill_dir=tmp_path / "none")


def test_what_will_be_spilled_is_said(gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any) -> None:
    assert spill_notice(gpt2, found) == ""
    size = spilled_bytes(gpt2, found, memory_gb=1e-4) / 1e9
    notice = spill_notice(gpt2, found, memory_gb=1e-4, spill_dir=tmp_path)
    assert f"{size:.3g} GB of states of {gpt2.name} will be spilled to {tmp_path}" in notice


def test_a_spill_folder_in_main_memory_is_named_as_such() -> None:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    in_memory = [Path(mount) for mount, kind in mounts if kind == "tmpfs" and mount.endswith("/shm")]
    if not in_memory:
        pytest.skip("no tmpfs here")
    assert "lies in main memory (tmpfs), so that spilling saves none; name another" in described(in_memory[0])
    assert described(Path("/proc")) == "/proc"
    assert described(Path()).startswith(str(Path.cwd()))  # "." says little to who reads a log


def test_a_system_that_cannot_reserve_files(
    gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    with extract(gpt2, found) as memory, extract(gpt2, found, memory_gb=2e-4, spill_dir=tmp_path) as disk:
        torch.testing.assert_close(everything(disk), everything(memory), **CLOSE)


def test_a_full_disk_is_known_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"States of 400000\.0 GB are to be spilled to .* name another spill_dir"):
        StateStore((1, 1, 10**9, 10**5), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(gpt2: LanguageModel, found: Windows, tmp_path: Path, monkeypatch: Any) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EmergenceError, match="Spilling states failed: No space left on device; choose another"):
        extract(gpt2, found, memory_gb=1e-4, spill_dir=tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"has no room for .* GB of spilled states \(No space left on device\)"):
        extract(gpt2, found, memory_gb=1e-4, spill_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == 0


INTERRUPTED = """
import sys
from pathlib import Path
from extraction import extract, load_model, windows
model = load_model(sys.argv[1])
found = windows("animal", model.tokenizer, count=20_000)
def progress(done, total):
    print(done, flush=True)
extract(model, found, memory_gb=0.01, spill_dir=Path(sys.argv[2]), progress=progress)
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
    assert process.returncode in (-how, 130, 1)
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
from extraction import extract, load_model, passes, windows
model = load_model("gpt2-90k", device="cpu")
found = windows("animal", model.tokenizer, count=20_000)
with extract(model, found.select(np.arange(50))):
    pass  # what libraries take once is taken
passes.BATCH_TOKENS = 10**9
rows = []
model.blocks[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000,) * 2)
with extract(model, found, memory_gb=64.0) as states:
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


# ------------------------------------------------------------------------------------------------------------ the rest


def test_progress_counts_every_sequence(gpt2: LanguageModel, found: Windows) -> None:
    told: list[tuple[int, int]] = []
    for memory_gb in (2.0, 1e-4):  # with room to keep the pilot's states, and without
        told.clear()
        with extract(gpt2, found, memory_gb=memory_gb, progress=lambda done, total: told.append((done, total))):
            pass
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] == told[0][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"project": 0}, "at least 1; got 0"),
        ({"memory_gb": 0}, "above 0; got 0"),
    ],
)
def test_options_that_make_no_sense(gpt2: LanguageModel, found: Windows, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extract(gpt2, found, **change)


def test_windows_that_do_not_fit_the_model(gpt2: LanguageModel) -> None:
    long = Windows("x", "text", np.arange(65)[None], np.ones(1))
    with pytest.raises(InputError, match=r"is 65 tokens with what the tokenizer adds, but the context .* is 64"):
        extract(gpt2, long)
    foreign = Windows("x", "text", np.array([[0, 10**6]]), np.ones(1))
    with pytest.raises(InputError, match=r"hold token 1000000, but .* knows 472; make them with the tokenizer"):
        extract(gpt2, foreign)


def test_blocks_and_positions_that_are_not_there(gpt2: LanguageModel, found: Windows) -> None:
    with extract(gpt2, found) as states:
        with pytest.raises(InputError, match="numbered 0 to 2; got 3"):
            states.leaving(3, 1)
        with pytest.raises(InputError, match="numbered 1 to 5; got 0"):
            states.leaving(0, 0)
        with pytest.raises(InputError, match="pass entering=True"):
            states.entering(0, 1)
        assert states.entering(1, 1).shape == (len(found), 32)


def test_half_precision_and_device_maps_give_about_the_same(
    gpt2_folder: Path, gpt2: LanguageModel, found: Windows
) -> None:
    half = load_model(str(gpt2_folder), dtype="bfloat16", device_map="auto", device="cpu")
    with extract(half, found) as rough, extract(gpt2, found) as fine:
        assert rough.leaving(2, 5).dtype == torch.float32
        error = (rough.leaving(2, 5) - fine.leaving(2, 5)).norm() / fine.leaving(2, 5).norm()
        assert error < 0.05  # bfloat16 keeps 8 bits: 0.4 % a rounding, some tens of them in three blocks
