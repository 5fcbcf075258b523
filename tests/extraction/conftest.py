"""Tiny real models and tokenizers, windows for them, and a client that does not wait."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction.answers.collecting import pace
from extraction.corpora.categories import CATEGORIES
from extraction.corpora.loading import text_windows
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel, load_model
from tests.extraction.answers.collecting.played import KEY
from tests.extraction.states.state_checks import TEXT

START = "<s>"


def _byte_level_tokenizer(*, bos: bool) -> Any:
    """Byte-level BPE like that of GPT-2, with the paper's entities as single tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = [f" {entity}" for group in CATEGORIES.values() for entity in group]
    backend.train_from_iterator([",".join([*words, ""])] * 20, trainer)
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{START} $A", special_tokens=[(START, backend.token_to_id(START))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=START,
        eos_token=START,
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return _byte_level_tokenizer(bos=False)


@pytest.fixture(scope="session")
def bos_tokenizer() -> Any:
    """Puts a token before every text."""
    return _byte_level_tokenizer(bos=True)


@pytest.fixture(scope="session")
def save_gpt2(tokenizer: Any) -> Callable[..., Path]:
    """Save a tiny GPT-2 with random weights, large enough for its states to differ visibly."""

    def save(folder: Path, tokenizer: Any = tokenizer, **changes: Any) -> Path:
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
        config = GPT2Config(**{**shape, "vocab_size": len(tokenizer), "bos_token_id": 0, "eos_token_id": 0, **changes})
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def gpt2_folder(save_gpt2: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def gpt2(gpt2_folder: Path) -> LanguageModel:
    return load_model(str(gpt2_folder))


@pytest.fixture(scope="module")
def found(tokenizer: Any) -> Windows:
    """Windows of unequal weights, some sharing tokens and prefixes."""
    return text_windows([TEXT, TEXT[10:], TEXT], tokenizer, tokens=5, count=None, at="anywhere")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and hardly a pause between attempts."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(pace, "FIRST_DELAY_S", 0.001)
