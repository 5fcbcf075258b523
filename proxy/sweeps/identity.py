"""Which version of a model or corpus a name stands for now."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Literal

from estimators.base import InputError
from proxy.sweeps.config import Model

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_TIMEOUT = 5.0  # seconds
HUB_CALLS = 16  # at once


def local_model(name: str) -> Path | None:
    """Return the folder of a bundled model or of a model on disk; None for what must be a hub id.

    Raises:
        InputError: if `name` is a path without a model, or no possible hub id.
    """
    from extraction import reference_models

    if name in reference_models.names():
        return reference_models.path(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"The folder {name} holds no config.json; give the folder of a saved model.")
        return folder
    if not HUB_ID.fullmatch(name) or name.startswith((".", "/", "~")):
        raise InputError(f"No model folder at {name}, and no hub id looks like that; check the path.")
    return None


def model_versions(models: Sequence[Model]) -> list[str | None]:
    """Return for each model the hash of its files, or the commit of a hub model; None where the hub is out of reach.

    Raises:
        InputError: if a folder or hub model does not exist.
    """
    with ThreadPoolExecutor(HUB_CALLS) as pool:
        return list(pool.map(_model_version, models))


def _model_version(model: Model) -> str | None:
    folder = local_model(model.id)
    if folder is not None:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        whole = hashlib.sha256()
        for path in files:
            whole.update(f"{path.name}\0{_content_hash(path)}\0".encode())
        return whole.hexdigest()[:16]
    if model.revision is not None and COMMIT.fullmatch(model.revision):
        return model.revision
    return _hub_commit("model", model.id, model.revision or "main")


def _hub_commit(kind: Literal["model", "dataset"], name: str, revision: str) -> str | None:
    """Ask the hub, else the local cache, which commit `revision` is."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    cached = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}" / "refs" / revision
    if not constants.HF_HUB_OFFLINE:
        try:
            return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=HUB_TIMEOUT).sha
        except RevisionNotFoundError as error:
            raise InputError(f"The hub {kind} {name} has no revision {revision}; check its history.") from error
        except RepositoryNotFoundError as error:
            if not cached.is_file():
                if kind == "dataset":
                    raise InputError(
                        f"hf:{name} is no data set of the hub you can see; check the name, or log in with "
                        "`hf auth login`."
                    ) from error
                raise InputError(
                    f"{name} is no bundled model, no folder and no hub model you can see"
                    f"{_nearest_bundled(name)}; check the name, or log in with `hf auth login`."
                ) from error
        except Exception as error:  # whatever the network throws, the cache may still know
            if not _network(error):
                raise
    return cached.read_text().strip() if cached.is_file() else None


def _network(error: Exception) -> bool:
    """Whether `error` says that the hub is out of reach, in any of its HTTP libraries' words."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(kinds & {"HTTPError", "TransportError", "HfHubHTTPError"})


def _nearest_bundled(name: str) -> str:
    from extraction import reference_models

    near = difflib.get_close_matches(name, list(reference_models.names()), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def corpus_versions(sources: Sequence[str]) -> list[str]:
    """Return `corpus_version` of each.

    Raises:
        InputError: if there is no such corpus.
    """
    with ThreadPoolExecutor(HUB_CALLS) as pool:
        return list(pool.map(corpus_version, sources))


def corpus_version(source: str) -> str:
    """Return a hash of the content that a corpus stands for, or the commit of a data set of the hub (hf:NAME).

    Where the hub is out of reach and its cache does not know the data set, the hash is of the name alone.

    Raises:
        InputError: if there is no such corpus.
    """
    from extraction.corpora.categories import CATEGORIES
    from extraction.corpora.text import ENDINGS, data_set

    if source in CATEGORIES:
        return _text_hash("\n".join(CATEGORIES[source]))
    if source == "python-docs":
        from pydoc_data.topics import topics

        return _text_hash("\n".join(topics[name] for name in sorted(topics)))
    if source.startswith("hf:"):
        name, _ = data_set(source)
        on_hub = HUB_ID.fullmatch(name) and not Path(name).exists()
        commit = _hub_commit("dataset", name, "main") if on_hub else None
        return commit or _text_hash(source)
    path = Path(source.removeprefix("list:")).expanduser()
    if path.is_dir():
        files = sorted(inner for inner in path.rglob("*") if inner.suffix in ENDINGS)
        return _text_hash("\n".join(f"{file.relative_to(path)} {_content_hash(file)}" for file in files))
    if not path.is_file():
        known = [*CATEGORIES, "python-docs"]
        near = difflib.get_close_matches(source, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "or give the path of a text file."
        raise InputError(f"No corpus {source}: built in are {', '.join(known)}; {hint}")
    if path.stat().st_size == 0:
        raise InputError(f"The corpus {source} is an empty file; give a text with at least one window of tokens.")
    return _content_hash(path)[:16]


def _content_hash(path: Path) -> str:
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _file_hash(path: Path, size: int, modified_ns: int) -> str:
    """Hash a file's content once per process and state (`size`, `modified_ns`) of the file."""
    with open(os.fspath(path), "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
