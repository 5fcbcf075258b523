"""What a results folder says of its own making: versions, code revision, hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("emergence-proxy", "numpy", "pandas", "ray", "safetensors", "tokenizers", "torch", "transformers")


def header(name: str, config: Mapping[str, Any], keys: Sequence[str], seed: int) -> dict[str, Any]:
    """Return what sweep.json says: what was asked for, of jobs with these `keys`, and where it was made."""
    return {
        "name": name,
        "config": config,
        "jobs": keys,
        "versions": versions(),
        "git_revision": git_revision(),
        "seed": seed,
        "hardware": hardware(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}


def git_revision() -> str | None:
    """Return the commit this code is checked out at, with `+changes` if files differ; None when installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(  # noqa: S603
        ["git", *arguments],  # noqa: S607
        cwd=root,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return answer.stdout.strip()


def hardware() -> dict[str, Any]:
    """Return the driver's machine: name, processor, cores and memory in GiB."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


def accelerators() -> str | None:
    """Return what GPUs this process sees, such as `2 x NVIDIA H100 80GB HBM3`; None without any."""
    import torch

    if not torch.cuda.is_available():
        return None
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
