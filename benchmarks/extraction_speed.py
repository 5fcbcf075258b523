"""Extraction against the bare model, side by side: throughput, peak memory, and what the tokens alone cost.

    python benchmarks/extraction_speed.py                        # CPU, 124M parameters, 40 minutes on 2 cores
    python benchmarks/extraction_speed.py --windows 3000 --distinct 400 --repeats 2 --memory     # throughput alone
    python benchmarks/extraction_speed.py --windows 0 --inner 64                                 # memory alone
    python benchmarks/extraction_speed.py --windows 0 --memory 300000 --states-gb 1 --limit-gb 3 # paper's size, an hour
    python benchmarks/extraction_speed.py --device cuda --dtype bfloat16 --windows 100000
    python benchmarks/extraction_speed.py --layers 2 --width 64 --windows 1000 --memory 500 5000  # only to try

The model is shaped like GPT-2 with random weights, which cost as much as trained ones; narrow feed-forward layers
(`--inner 64`) make it three times as fast without a change to its states. Ratios are of runs that took turns in one
process, on a CPU by the time its cores worked for them, so that what else runs there matters little, with the wall
clock's beside them; peak memory is that of a process of its own for every size. The exit code is 1 where extraction
runs below 0.90 of the bare model, its peak memory grows by more than a tenth from the fewest windows to the most, or
passes `--limit-gb`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extraction.corpora.token_windows import Windows
from extraction.models.batches import batch_tokens
from extraction.models.blocks import find_blocks, run_decoder
from extraction.models.load import LanguageModel
from extraction.states.budget import StateBudget
from extraction.states.extracting import extract, spilled_bytes

LEAST_THROUGHPUT = 0.90  # of the bare forward pass
MOST_GROWTH = 1.10  # of peak memory, from the fewest windows to the most
TOKENS = 8
VOCABULARY = 50257


def shaped_like_gpt2(options: argparse.Namespace) -> LanguageModel:
    """A GPT-2 with random weights of the asked shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    heads = max(1, options.width // 64)
    config = GPT2Config(n_embd=options.width, n_layer=options.layers, n_head=heads, n_inner=options.inner)
    device = torch.device(options.device)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False).to(device, getattr(torch, options.dtype))
    blocks = find_blocks(model, "gpt2")
    parameters = model.num_parameters()
    return LanguageModel(
        model, None, "random", None, "gpt2", parameters, blocks, options.width, VOCABULARY, device, 1024, ()
    )


def random_windows(count: int, distinct: int) -> Windows:
    """`count` windows over `distinct` token ids."""
    rng = np.random.default_rng(0)
    ids = rng.choice(VOCABULARY, distinct, replace=False)
    rows = np.unique(rng.integers(0, distinct, (count, TOKENS)), axis=0)
    return Windows("random", "text", ids[rng.permutation(rows)], np.ones(len(rows)))


def clock(device: torch.device) -> float:
    """Seconds: of a GPU's wall clock, once it has done what it was given; of work of all cores of a CPU."""
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def throughput(options: argparse.Namespace) -> bool:
    """Bare forward passes without a head, and extractions of the same windows, in turns."""
    model, windows = shaped_like_gpt2(options), random_windows(options.windows, options.distinct)
    rows = torch.from_numpy(windows.tokens)

    def bare() -> None:
        with torch.inference_mode():
            for batch in rows.split(batch_tokens(model) // TOKENS):
                run_decoder(model.model, batch.to(model.device))

    def captured() -> None:
        with extract(model, windows, likelihoods=False, budget=StateBudget(spill_dir=options.spill)):
            pass

    per_core = "" if model.device.type == "cuda" else " and core"
    with torch.inference_mode():
        run_decoder(model.model, rows[: batch_tokens(model) // TOKENS].to(model.device))  # warm
    worked: dict[str, list[float]] = {"bare": [], "extract": []}
    waited: dict[str, list[float]] = {"bare": [], "extract": []}
    for turn in range(options.repeats):
        for name, run in (
            (("bare", bare), ("extract", captured)) if turn % 2 else (("extract", captured), ("bare", bare))
        ):
            started, wall = clock(model.device), time.perf_counter()
            run()
            worked[name].append(clock(model.device) - started)
            waited[name].append(time.perf_counter() - wall)
            print(
                f"  {name:8} {rows.numel() / worked[name][-1]:12,.0f} tokens/s{per_core}, {waited[name][-1]:.0f} s",
                flush=True,
            )
    ratio, turns = ratios(worked)
    print(
        f"throughput, {rows.shape[0]:,} windows x {TOKENS} tokens of {options.distinct:,} kinds: extraction at "
        f"{ratio:.3f} of the bare forward pass (turns: {turns}), {ratios(waited)[0]:.3f} by the wall clock"
    )
    return ratio >= LEAST_THROUGHPUT


def ratios(seconds: dict[str, list[float]]) -> tuple[float, str]:
    """Median ratio of the bare model's time to that of extraction, and those of all turns."""
    each = [b / e for b, e in zip(seconds["bare"], seconds["extract"], strict=True)]
    return statistics.median(each), ", ".join(f"{one:.3f}" for one in each)


def memory(options: argparse.Namespace) -> bool:
    """Peak resident memory of one extraction for each number of windows, each in a process of its own."""
    peaks = {}
    for count in options.memory:
        arguments = [sys.executable, "-P", __file__, "--one-memory", str(count)]
        for name in ("layers", "width", "inner", "device", "dtype", "distinct", "states_gb", "spill"):
            if getattr(options, name) is not None:
                arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        found = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
        peaks[count] = found["peak"]
        print(
            f"  {count:8,} windows: peak {found['peak'] / 1e9:.3f} GB ({found['before'] / 1e9:.3f} GB before), "
            f"{found['spilled'] / 1e9:.2f} GB spilled, {found['seconds']:.0f} s",
            flush=True,
        )
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    print(
        f"memory: the peak of {max(peaks):,} windows is {growth:.3f} of that of {min(peaks):,}, at a budget of "
        f"{options.states_gb:g} GB"
    )
    return bool(growth <= MOST_GROWTH and max(peaks.values()) <= options.limit_gb * 1e9)


def one_memory(options: argparse.Namespace) -> None:
    """Run one extraction and print the peak of this process in bytes."""
    model, windows = shaped_like_gpt2(options), random_windows(options.one_memory, options.distinct)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of making the model
    before = peak_memory()
    spilled = spilled_bytes(model, windows, budget=StateBudget(states_gb=options.states_gb))
    started = time.perf_counter()
    budget = StateBudget(states_gb=options.states_gb, spill_dir=options.spill)
    with extract(model, windows, likelihoods=False, budget=budget) as states:
        states.leaving(0, 1)
    seconds = time.perf_counter() - started
    peak = peak_memory()
    print(json.dumps({"before": before, "peak": peak, "spilled": spilled, "seconds": seconds}))


def peak_memory() -> int:
    """Most bytes this process had resident since its peak was forgotten (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def micro(options: argparse.Namespace) -> None:
    """Sequences of one token that the model runs, by number of windows and of distinct tokens."""
    model = shaped_like_gpt2(options)
    alone = 0

    def note(module: Any, args: tuple[torch.Tensor, ...]) -> None:
        nonlocal alone
        alone += len(args[0]) if args[0].shape[1] == 1 else 0

    model.blocks[0].register_forward_pre_hook(note)
    for count, distinct in ((100, 50), (400, 50), (100, 200), (400, 200)):
        alone = 0
        windows = random_windows(count, distinct)
        with extract(model, windows, likelihoods=False):
            pass
        print(f"  {count:6,} windows of {distinct:4} tokens: {alone:6,} tokens run alone")


def main() -> int:
    """Run what is asked for; returns 1 where a target is missed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--inner", type=int, help="width of the feed-forward layers; default four times --width")
    parser.add_argument("--windows", type=int, default=8000)
    parser.add_argument("--distinct", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[2000, 50_000], help="numbers of windows")
    parser.add_argument("--states-gb", type=float, default=0.25, help="budget of --memory")
    parser.add_argument("--limit-gb", type=float, default=float("inf"), help="most that any peak of --memory may reach")
    parser.add_argument("--spill", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--one-memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_memory:
        one_memory(options)
        return 0
    cuda = options.device.startswith("cuda")
    place = torch.cuda.get_device_name(options.device) if cuda else f"{platform.processor() or platform.machine()} CPU"
    threads = "" if cuda else f", {torch.get_num_threads()} threads"
    print(f"{options.layers} blocks of {options.width}, {options.dtype}, {place}{threads}, torch {torch.__version__}")
    fast = throughput(options) if options.windows else True
    micro(options)
    flat = memory(options) if options.memory else True
    return 0 if fast and flat else 1


if __name__ == "__main__":
    sys.exit(main())
