"""From results to MLflow, reports and comparisons.

`track` replays a results folder into MLflow, `track_proxy` and `download_proxy` keep fitted proxies there,
`track_features` and `track_estimates` tables.
"""

from tracking.estimates import track_estimates, track_features
from tracking.proxies import TrackedProxy, download_proxy, track_proxy
from tracking.sweeps import TrackedSweep, replay, track
from tracking.tracker import MemoryTracker, Tracker

__all__ = [
    "MemoryTracker",
    "TrackedProxy",
    "TrackedSweep",
    "Tracker",
    "download_proxy",
    "replay",
    "track",
    "track_estimates",
    "track_features",
    "track_proxy",
]
