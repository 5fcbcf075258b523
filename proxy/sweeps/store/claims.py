"""Claims on jobs, so that two drivers on one results folder share the work instead of doing it twice."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from estimators.contracts.results_folder import CLAIMS
from proxy.sweeps.store.storage import Storage, retry

LEASE = 120.0  # seconds that a claim holds without being renewed
SKEW = 3600.0  # seconds that the clocks of two machines may differ; a claim that holds for longer is damaged
RENEWAL = 30.0  # seconds between renewals
_DRIVER = re.compile("[A-Za-z0-9]{1,64}")  # it becomes part of a file's name
AT_ONCE = 16  # claims renewed or given up at a time


class Claims:
    """The jobs that this driver works on; a claim of a driver that died is taken over.

    A claim is a file named after the job. It counts until its time is up, or, when its driver ran on this machine,
    until that process is gone. Then whoever is the first to create a file named after the job and the dead driver has
    taken it over; that file is a claim too, should its driver die before it has put its name on the first one.
    """

    def __init__(self, storage: Storage, *, lease: float = LEASE) -> None:
        self.storage = storage
        self.lease = lease
        self.held: set[str] = set()
        self._over: dict[str, str] = {}  # by job, the file that says from whom it was taken over
        self._renewed = time.monotonic()
        self._me = {
            "driver": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }

    def take(self, keys: Sequence[str]) -> set[str]:
        """Claim those of `keys` that no living driver holds, and return them."""
        won = set()
        for key in keys:
            if self._create(key):
                won.add(key)
                continue
            holder = self._holder(key)
            # It may be ours: it was created, and only the answer got lost.
            if self._mine(holder) or (not self._lives(holder) and self._takes_over(key, holder)):
                won.add(key)
        self.held |= won
        return won

    def _takes_over(self, key: str, dead: dict[str, Any]) -> bool:
        """Take `key` over from a driver that died, unless another one has; of any number that try, one does."""
        successor = key
        while True:
            # A torn claim names no driver: its successor is named after it, so that each is another file.
            successor = f"{key}.{dead['driver']}" if "driver" in dead else f"{successor}.torn"
            if self._create(successor):
                break
            dead = self._holder(successor)
            if self._mine(dead):
                break
            if self._lives(dead):
                return False
        self._write(key)
        self._over[key] = successor
        return True

    def free(self, key: str) -> bool:
        """Whether no living driver holds `key`."""
        return not self._lives(self._holder(key))

    def renew(self) -> None:
        """Prolong what is held, if it is time to."""
        if time.monotonic() - self._renewed < min(RENEWAL, self.lease / 4):
            return
        self._renewed = time.monotonic()
        _at_once(self._prolong, self.held)

    def release(self, key: str) -> None:
        """Give `key` up, done or not; a claim that was taken over meanwhile stays its new holder's."""
        if key in self.held:
            self.held.discard(key)
            if self._mine(self._holder(key)):
                self._delete(key)
                if key in self._over:
                    self._delete(self._over.pop(key))

    def release_all(self) -> None:
        """Give up all that is held."""
        _at_once(self.release, list(self.held))

    def clear_dead(self) -> None:
        """Delete what drivers that died left behind, such as the claim on a job they had just done."""
        for name in self.storage.sizes(CLAIMS):
            key = Path(name).stem
            if not self._lives(self._holder(key)):
                self._delete(key)

    def _prolong(self, key: str) -> None:
        """Renew one claim; one that was taken over while this driver was stuck is its new holder's."""
        if self._mine(self._holder(key)):
            self._write(key)

    def _content(self) -> bytes:
        return json.dumps({**self._me, "until": time.time() + self.lease}).encode()

    def _holder(self, key: str) -> dict[str, Any]:
        try:
            claim = json.loads(retry(lambda: self.storage.read(_name(key))))
        except (FileNotFoundError, ValueError, RecursionError):
            return {}
        driver = claim.get("driver") if isinstance(claim, dict) else None
        return claim if isinstance(driver, str) and _DRIVER.fullmatch(driver) else {}

    def _create(self, name: str) -> bool:
        return retry(lambda: self.storage.create(_name(name), self._content()))

    def _delete(self, name: str) -> None:
        retry(lambda: self.storage.delete(_name(name)))

    def _write(self, key: str) -> None:
        retry(lambda: self.storage.write(_name(key), self._content()))

    def _mine(self, claim: dict[str, Any]) -> bool:
        return bool(claim.get("driver") == self._me["driver"])

    def _lives(self, claim: dict[str, Any]) -> bool:
        if claim.get("boot") == self._me["boot"] and claim.get("host") == self._me["host"]:
            return _runs(claim.get("pid"), claim.get("started"))
        until = claim.get("until")
        if isinstance(until, bool) or not isinstance(until, int | float):
            return False
        return time.time() < until <= time.time() + self.lease + SKEW


def _at_once(action: Callable[[str], None], keys: Iterable[str]) -> None:
    """Do `action` for all `keys`, several at a time: over a network each waits for its answer."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(action, keys))


def _name(key: str) -> str:
    return f"{CLAIMS}/{key}.json"


def _boot() -> str:
    """Return what tells this boot and this space of process ids from any other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return str(psutil.boot_time())


def _runs(pid: Any, started: Any) -> bool:
    if not isinstance(pid, int):  # None would stand for this process
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not yet taken note
            return False
        return bool(abs(process.create_time() - started) < 2)  # it is computed from a clock that drifts
    except (psutil.Error, TypeError, ValueError, OverflowError):
        return False
