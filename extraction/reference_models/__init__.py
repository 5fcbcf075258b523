"""Ten small causal language models, GPT-2 and Gemma in five sizes each, with their tokenizer.

Each is a plain `from_pretrained` folder beside this file, trained by benchmarks/train_reference_models.py; README.md
is the model card.
"""

from pathlib import Path

ARCHITECTURES = ("gpt2", "gemma")
SIZES = ("30k", "90k", "280k", "750k", "2m")


def names() -> tuple[str, ...]:
    """Names of the bundled models, by architecture and then by size.

    >>> names()[:5]
    ('gpt2-30k', 'gpt2-90k', 'gpt2-280k', 'gpt2-750k', 'gpt2-2m')
    """
    return tuple(f"{architecture}-{size}" for architecture in ARCHITECTURES for size in SIZES)


def path(name: str) -> Path:
    """Folder of a bundled model, ready for `from_pretrained`.

    Raises:
        KeyError: no bundled model has that name.
    """
    if name not in names():
        raise KeyError(name)
    return Path(__file__).parent / name
