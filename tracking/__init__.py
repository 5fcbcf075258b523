"""From results to MLflow, reports and comparisons.

`track` replays a results folder into MLflow, `track_proxy` and `download_proxy` keep fitted proxies there,
`track_features` and `track_estimates` tables; `compare`, `report` and `promote` say what runs mean.
"""

from tracking.comparison import compare
from tracking.estimates import track_estimates, track_features
from tracking.promotion import promote
from tracking.proxies import TrackedProxy, track_proxy
from tracking.proxy_models import download_proxy
from tracking.reporting import report
from tracking.sweeps import TrackedSweep, replay, track
from tracking.tracker import MemoryTracker, Tracker

__all__ = [
    "MemoryTracker",
    "TrackedProxy",
    "TrackedSweep",
    "Tracker",
    "compare",
    "download_proxy",
    "promote",
    "replay",
    "report",
    "track",
    "track_estimates",
    "track_features",
    "track_proxy",
]
