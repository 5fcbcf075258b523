"""What a model says after single tokens, kept for every corpus: each is asked for once, whatever log it went to.

A log holds the replies of one measurement. Those after single tokens serve every corpus that the same tokenizer cuts,
so they are copied into one more file for each server and model in the user's cache folder, and from there into the next
log. Files hold replies under hashes of what was asked: neither texts of a corpus nor keys.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from estimators.contracts.cache import cache_folder
from estimators.contracts.seals import SEAL
from extraction.answers.collecting.api import check_base_url
from extraction.answers.collecting.log import AnswerLog, LogInUseError

FOLDER = "single-tokens"
WAIT_S = 10.0  # for another process, which copies for well below a second
OWN = ("version", SEAL, "billed")  # fields that do not go from file to file: each reply is paid for in one log alone


def single_token_file(model: str, base_url: str | None) -> Path | None:
    """Where replies after single tokens are kept for every corpus.

    None for a server on this machine or its network, where another model may answer under the same name tomorrow and
    nothing is billed, and for a user without a home.

    >>> single_token_file("m", "http://127.0.0.1:8000/v1"), single_token_file("m", "http://gpu:8000/v1")
    (None, None)
    """
    parts = urlsplit(check_base_url(base_url))
    base = cache_folder()
    if base is None or _is_near(parts.hostname or ""):
        return None
    place = f"{parts.netloc}{parts.path}"
    digest = hashlib.sha256(f"{place} {model}".encode()).hexdigest()[:8]
    name = ".".join(re.sub(r"[^\w.-]+", "_", part)[:80] for part in (model, parts.netloc))
    return base / FOLDER / f"{name}.{digest}.jsonl"


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(".local")


def copy_answers(keys: Iterable[str], source: Path, target: Path) -> int:
    """Copy the answers of `keys` that `target` lacks from one log into another; where nothing can be written, none.

    Raises:
        InputError: if one of the files is no answer log, or another process holds it.
    """
    if not source.is_file():
        return 0
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.is_dir():
        return 0
    copied = 0
    with _opened(source) as there, _opened(target) as here:
        for key in dict.fromkeys(keys):
            if there.answered(key) and not here.answered(key):
                record = there.record(key) or {}
                here.append({name: value for name, value in record.items() if name not in OWN})
                copied += 1
    return copied


def _opened(path: Path) -> AnswerLog:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            return AnswerLog(path)
        except LogInUseError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
