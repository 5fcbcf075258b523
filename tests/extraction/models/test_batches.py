"""How many sequences run at once: what one took foretells what many take, for every kind of model."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from extraction import LanguageModel, Projection, StateBudget, extract, load_model, windows
from extraction.models import batches
from extraction.models.batches import batch_tokens, rows_at_once, sequence_bytes
from extraction.models.blocks import find_blocks
from extraction.states.forward import run_batches

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1024, "intermediate_size": 128,
         "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0,
         "pad_token_id": 0}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16}
# Chunks are those of the published models; the rest is small.
KINDS: dict[str, dict[str, Any]] = {
    "mamba2": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 1024, "num_heads": 8, "head_dim": 16,
               "n_groups": 1, "state_size": 16, "chunk_size": 256},
    "bamba": {**SHAPE, **MAMBA, "mamba_chunk_size": 256, "attn_layer_indices": [1]},
    "falcon_h1": {**SHAPE, **MAMBA, "mamba_d_ssm": 128, "mamba_chunk_size": 128},
    "qwen3_next": {**SHAPE, "head_dim": 16, "linear_num_key_heads": 4, "linear_num_value_heads": 4,
                   "linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts": 2, "num_experts_per_tok": 1,
                   "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
                   "layer_types": ["linear_attention", "full_attention"]},
    "llama": SHAPE,
}  # fmt: skip
STATE_SPACE = ("mamba2", "bamba", "falcon_h1")


@pytest.fixture(scope="module")
def known() -> LanguageModel:
    return load_model("gpt2-30k", device="cpu")


@pytest.fixture
def made(known: LanguageModel, request: pytest.FixtureRequest) -> LanguageModel:
    kind = request.param
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind])).eval()
    return replace(known, model=model, name=kind, blocks=find_blocks(model, kind), width=64, vocabulary=1024)


def peak(model: LanguageModel, rows: int, length: int, *, head: bool) -> int:
    """Most memory that the allocator gave out at a time while `rows` sequences ran."""
    ids = torch.randint(0, 1024, (rows, length), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autograd.profiler.profile(profile_memory=True) as seen:
        (model.model if head else model.model.get_decoder())(input_ids=ids, use_cache=False)
    now = most = 0
    for event in seen.kineto_results.events():
        now += event.nbytes() if event.name() == "[memory]" else 0
        most = max(most, now)
    return most


@pytest.mark.parametrize("made", KINDS, indirect=True)
@pytest.mark.parametrize(("length", "head"), [(1, False), (8, False), (8, True)])
def test_one_sequence_foretells_many(made: LanguageModel, length: int, head: bool) -> None:
    one = sequence_bytes(made, length, head=head)
    for rows in (4, 12):
        took = peak(made, rows, length, head=head)
        assert took <= batches.MARGIN * rows * one
        # Not a bound that says nothing: what does not grow with the rows, such as rotary tables, is a small part.
        assert took > 0.5 * rows * one


@pytest.mark.parametrize("made", STATE_SPACE, indirect=True)
def test_a_lone_token_of_a_state_space_model_is_filled_up_to_a_chunk(made: LanguageModel) -> None:
    assert sequence_bytes(made, 1) > 100 * 16 * made.width  # 16 bytes a width is what a batch was sized by before
    assert sequence_bytes(made, 1) > 0.9 * sequence_bytes(made, 8)
    rows = rows_at_once(made, 1)
    assert 1 <= rows < batch_tokens(made) / 2
    assert batches.MARGIN * rows * sequence_bytes(made, 1) <= batches.CPU_BYTES


def test_others_run_as_many_as_before(known: LanguageModel) -> None:
    assert rows_at_once(known, 8) == batches.BATCH_TOKENS // 8
    assert rows_at_once(known, 8, held=batches.CPU_BYTES // 10) == 7  # a tenth of the room with its margin of a quarter
    assert rows_at_once(known, 8, held=batches.CPU_BYTES) == 1


def test_batches_grow_from_small(known: LanguageModel) -> None:
    ids = torch.randint(0, 1024, (500, 3))
    sizes = [
        batch.stop - batch.start for batch in run_batches(known, ids, lambda p, h: h.clone(), prefix=(), batch=200)
    ]
    assert sizes == [4, 16, 64, 200, 200, 16]
    assert [batch.stop for batch in run_batches(known, ids[:6], lambda p, h: None, prefix=(), batch=3)] == [3, 6]


def test_measuring_says_nothing_and_measures_once(
    known: LanguageModel, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(known, model=load_model("gpt2-30k", device="cpu").model)
    first = sequence_bytes(model, 5)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(batches, "_measured", None)
    assert sequence_bytes(replace(model, name="other"), 5) == first > 0


def test_a_profiler_at_work_is_left_alone() -> None:
    model = load_model("gpt2-30k", device="cpu")
    with torch.autograd.profiler.profile():
        assert sequence_bytes(model, 5) == 0
        assert rows_at_once(model, 5) == batches.BATCH_TOKENS // 5
    assert sequence_bytes(model, 5) > 0  # once it is done


def test_what_cannot_be_measured_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("gpt2-30k", device="cpu")
    tried = []
    monkeypatch.setattr(batches, "run_decoder", lambda *_, **__: tried.append(1) or 1 / 0)
    assert [sequence_bytes(model, 5) for _ in range(3)] == [0, 0, 0]
    assert len(tried) == 1


@pytest.mark.slow
@pytest.mark.parametrize("made", ["mamba2"], indirect=True)
def test_real_memory_stays_within_the_bound(made: LanguageModel) -> None:
    """A Mamba-2 of width 768 with chunks of 256: 42 MB a lone token, 14 GB in a batch sized by widths."""
    config = AutoConfig.for_model(
        "mamba2", hidden_size=768, num_hidden_layers=1, vocab_size=1024, num_heads=24, head_dim=64, n_groups=1,
        state_size=128, chunk_size=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    made = replace(made, model=model, blocks=find_blocks(model, "mamba2"), width=768)
    found = windows("python-docs", made.tokenizer, count=100, tokens=4)
    assert len(found.distinct_tokens()[0]) > 80
    sequence_bytes(made, 4)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    with extract(made, found, projection=Projection(None), likelihoods=False, budget=StateBudget(states_gb=0.5)):
        pass
    assert _resident("VmHWM") - before < 2e9


def _resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(which)).split()[1])
