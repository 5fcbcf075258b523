"""Which model a name stands for: a bundled one, a folder on disk or a repository of the hub, however it is spelled."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from estimators.base import InputError
from estimators.contracts.files import check_file
from extraction import reference_models
from extraction.labels import labels
from extraction.models.gguf_files import ENDING, is_gguf
from extraction.versions import COMMIT, HUB_ID, content_hash, hub_commit, text_hash

# A name of this form is a bundled model or a typing error; those on the hub have an owner before a slash.
_LIKE_BUNDLED = re.compile(rf"({'|'.join(reference_models.ARCHITECTURES)})-\d+[km]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is found, and what tables call it.

    Attributes:
        kind: `bundled`, `disk` or `hub`.
        display_name: the bundled name, the folder's or file's own name, or the id on the hub.
        path: absolute path of a bundled model or one on disk, without links; None for one of the hub.
    """

    kind: Literal["bundled", "disk", "hub"]
    display_name: str
    path: Path | None = None

    @property
    def location(self) -> str:
        """What `from_pretrained` takes; equal for all spellings of one model."""
        return self.display_name if self.path is None else str(self.path)

    @property
    def family(self) -> str | None:
        """The architecture of a bundled model."""
        return self.display_name.rsplit("-", 1)[0] if self.kind == "bundled" else None


def resolve_model(name: str | os.PathLike[str]) -> ModelSource:
    """Find out what `name` stands for: a bundled model, else what lies on disk at that path, else an id on the hub.

    Raises:
        InputError: if it is a path without a model, or can be no id on the hub.

    >>> resolve_model("gpt2-30k").kind, resolve_model("EleutherAI/pythia-70m").kind
    ('bundled', 'hub')
    """
    text = os.fspath(name)
    if text in reference_models.names():
        return ModelSource("bundled", text, reference_models.path(text))
    if not text.strip():
        raise InputError(f"The name of a model is empty. {bundled(text)}")
    place = os.path.abspath(os.path.expanduser(text))  # Path.expanduser would raise on an unknown user
    check_file(Path("-" if text == "-" else place))
    if os.path.isdir(place):  # Path.is_dir would raise on an overlong name
        if not os.path.isfile(os.path.join(place, "config.json")):
            raise InputError(f"The folder {text} holds no config.json; give the folder that save_pretrained wrote.")
        return ModelSource("disk", os.path.basename(place), Path(place).resolve())
    if os.path.isfile(place):
        if not place.lower().endswith(ENDING):
            raise InputError(f"{text} is a file; give a .gguf file, or the folder that holds the model's config.json.")
        return ModelSource("disk", Path(place).stem, Path(place).resolve())
    if not HUB_ID.fullmatch(text):
        raise InputError(f"No model folder at {text!r}, and it is not a valid hub id; check the path. {bundled(text)}")
    if _LIKE_BUNDLED.fullmatch(text):
        raise InputError(f"There is no bundled model {text}. {bundled(text)}")
    return ModelSource("hub", text)


def display_names(sources: Sequence[ModelSource]) -> dict[str, str]:
    """Return by location what tables call each model: its own name, after the folders that distinguish it from others.

    >>> one, two = (ModelSource("disk", "tiny", Path(f"/models/{run}/tiny")) for run in "ab")
    >>> display_names([one, two, resolve_model("gpt2-30k")]).values()
    dict_values(['a/tiny', 'b/tiny', 'gpt2-30k'])
    """
    first = {source.location: source for source in reversed(sources)}  # of several spellings
    told_apart = labels({source.path: source.display_name for source in first.values() if source.path})
    return {
        source.location: told_apart[source.path] if source.kind == "disk" and source.path else source.display_name
        for source in sources
    }


def distinct_models(names: Sequence[str]) -> dict[str, str]:
    """Return what was given for each model, of several spellings the first, and what tables call it.

    Raises:
        InputError: if a name stands for no model; see `resolve_model`.

    >>> distinct_models(["gpt2-30k", "gpt2-90k", "gpt2-30k"])
    {'gpt2-30k': 'gpt2-30k', 'gpt2-90k': 'gpt2-90k'}
    """
    sources = [resolve_model(name) for name in names]
    first: dict[str, str] = {}
    for name, source in zip(names, sources, strict=True):
        first.setdefault(source.location, name)
    shown = display_names(sources)
    return {name: shown[location] for location, name in first.items()}


def same_model(name: str, other: str) -> bool:
    """Whether two names in tables mean one model, however a folder was spelled.

    >>> same_model("./runs/tiny/", "tiny"), same_model("owner/tiny", "tiny")
    (True, False)
    """
    return _written(name) == _written(other)


def _written(name: str) -> str:
    """Return the name that tables give a model today; earlier ones hold folders as they were typed."""
    place = os.path.abspath(os.path.expanduser(name))
    if name.lower().endswith(ENDING):
        return Path(place).stem
    is_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or os.path.isdir(place)
    return os.path.basename(place) if is_path else name


def model_version(source: ModelSource, revision: str | None = None) -> str | None:
    """Return which version a model is now; None where the hub cannot be asked.

    It is the hash of a folder's files, the SHA-256 of a GGUF file, or the commit of a hub model.

    Raises:
        InputError: if the hub has no such model or revision.
    """
    if source.path is None:
        if revision is not None and COMMIT.fullmatch(revision):
            return revision
        try:
            return hub_commit("model", source.display_name, revision or "main")
        except InputError as error:
            raise InputError(
                f"{error} It is not a bundled model or a folder either. {bundled(source.display_name)}"
            ) from error
    if is_gguf(source.path):
        return content_hash(source.path)
    inside = source.path.iterdir() if source.path.is_dir() else [source.path]
    files = sorted(path for path in inside if path.is_file() and not path.name.startswith("."))
    return text_hash("".join(f"{path.name}\0{content_hash(path)}\0" for path in files))


def bundled(name: str) -> str:
    """Name the bundled models, and the one nearest to `name`, for the end of a message."""
    names = list(reference_models.names())
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    return f"Bundled models: {', '.join(names)}" + (f"; nearest: {near[0]}." if near else ".")
