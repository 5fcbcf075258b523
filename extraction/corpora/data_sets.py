"""Data sets of the hub, or in a folder, by name: ``hf:NAME``, ``hf:NAME:SPLIT`` or ``hf:NAME:CONFIG:SPLIT``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.base import InputError

SHORT_NAMES = {"openorca": ("Open-Orca/OpenOrca", "response"), "openhermes": ("teknium/openhermes", "output")}


@dataclass(frozen=True, slots=True)
class DataSet:
    """A split of a data set.

    Attributes:
        source: as it was given.
        name: id on the hub, or a folder.
        config: its configuration; None for the only or default one.
        split: the split to read.
        column: of its text, where that is known; else None.
    """

    source: str
    name: str
    config: str | None = None
    split: str = "train"
    column: str | None = None


def parse_data_set(source: str) -> DataSet:
    """Read ``hf:NAME``, ``hf:NAME:SPLIT`` or ``hf:NAME:CONFIG:SPLIT``.

    Raises:
        InputError: if it has another form.

    >>> parse_data_set("hf:openorca")
    DataSet(source='hf:openorca', name='Open-Orca/OpenOrca', config=None, split='train', column='response')
    """
    name, *which = source.removeprefix("hf:").split(":")
    if not name or len(which) > 2 or not all(which):
        raise InputError(f"A data set is hf:NAME, hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT; got {source}.")
    name, column = SHORT_NAMES.get(name.lower(), (name, None))
    return DataSet(source, name, which[0] if len(which) == 2 else None, which[-1] if which else "train", column)


@contextmanager
def open_data_set(chosen: DataSet, *, revision: str | None = None, stream: bool = False) -> Iterator[Any]:
    """Load a data set with the library datasets; what goes wrong while it is read is said in one sentence.

    Args:
        chosen: from `parse_data_set`; a folder that `save_to_disk` wrote is read too, unless streamed.
        revision: branch, tag or commit.
        stream: give rows as they are asked for, without loading the whole.

    Raises:
        InputError: if the library is not installed, or the data set cannot be read.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"{chosen.source} needs the library datasets; pip install 'emergence-proxy[datasets]', or give a file."
        ) from error
    folder = Path(chosen.name)
    try:
        if not stream and ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
            loaded = datasets.load_from_disk(str(folder))
            yield loaded[chosen.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            yield datasets.load_dataset(
                chosen.name, chosen.config, split=chosen.split, revision=revision, streaming=stream
            )
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"The data set {chosen.source} could not be read: {reason}. Check its name and the connection; without "
            "one, give the folder of a downloaded copy, or set HF_HUB_OFFLINE=1 and HF_DATASETS_OFFLINE=1 to use the "
            "cache alone."
        ) from error
