"""Which version a file, a text or a repository of the hub is now: the hash of its content, or its commit."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Literal

from estimators.base import InputError

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(  # as the hub allows: letters and digits at both ends of owner and name, no -- or .. within
    r"(?!.*(?:--|\.\.|\.git$))(?:[a-z0-9](?:[\w.-]*\w)?/)?[a-z0-9](?:[\w.-]{0,94}\w)?", re.ASCII | re.IGNORECASE
)
HUB_TIMEOUT = 5.0  # seconds

Kind = Literal["model", "dataset"]


def text_hash(text: str) -> str:
    """Return 16 hex digits of the SHA-256 of a text.

    >>> text_hash("one")
    '7692c3ad3540bb80'
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits; a file that has not changed is read once per process."""
    status = path.stat()
    return _content_hash(path, status.st_size, status.st_mtime_ns)


@cache
def _content_hash(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hub_commit(kind: Kind, name: str, revision: str) -> str | None:
    """Return the commit that `revision` of a repository is, by the hub, else by its cache; None if neither can tell.

    Raises:
        InputError: if the hub answers and has no such repository or revision.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / revision
    if not constants.HF_HUB_OFFLINE:
        try:
            return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=HUB_TIMEOUT).sha
        except RevisionNotFoundError as error:
            raise InputError(f"The hub {kind} {name} has no revision {revision}; check its history.") from error
        except RepositoryNotFoundError as error:
            if not cached.is_file():
                what = "model" if kind == "model" else "data set"
                raise InputError(
                    f"{name} is not a {what} of the hub that you can access; check the name, or log in with `hf auth "
                    "login`."
                ) from error
        except Exception as error:  # whatever the network throws, the cache may still know
            if not out_of_reach(error):
                raise
    return cached.read_text().strip() if cached.is_file() else None


def cached_model(name: str, revision: str | None = None) -> Path | None:
    """Return the folder of a hub model in the local cache; None if its configuration is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    return Path(found).parent if isinstance(found, str) else None


def hub_parameters(name: str, revision: str | None = None) -> int | None:
    """Return the number of parameters of a hub model by the headers of its safetensors files, which alone are fetched.

    None where the hub cannot be asked, or the model has no such files.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if constants.HF_HUB_OFFLINE:
        return None
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        found = HfApi().get_safetensors_metadata(name, revision=revision, timeout=HUB_TIMEOUT)
    except (NotASafetensorsRepoError, SafetensorsParsingError):
        return None
    except Exception as error:  # an estimate of its size is no reason to end a plan
        if not out_of_reach(error):
            raise
        return None
    finally:
        if shown:
            enable_progress_bars()
    return sum(found.parameter_count.values())


def out_of_reach(error: Exception) -> bool:
    """Whether `error` says that the hub is out of reach, in any of its HTTP libraries' words."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or bool(kinds & {"HTTPError", "TransportError", "HfHubHTTPError"})
