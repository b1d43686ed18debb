"""What machine a figure was measured on, and how long things take on it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

Name = TypeVar("Name", bound=Hashable)


def machine() -> dict[str, object]:
    """Processor, cores, load and the versions that matter for speed."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if "model name" in line]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tinsley", "jax", "flowjax", "equinox")},
    }


def median_seconds(
    calls: Mapping[Name, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Name, float]:
    """Seconds of each call, median of rounds in which they take turns; each waits for its end."""
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            started = clock()
            call()
            if turn:  # the first compiles
                seconds[name].append(clock() - started)
    return {name: float(np.median(each)) for name, each in seconds.items()}
