"""From results to MLflow, reports and comparisons.

`track` replays a results folder into MLflow, `track_proxy` and `download_proxy` keep fitted proxies there,
`track_features` and `track_estimates` tables; `compare`, `report`, `plot_depth` and `promote` say
what runs mean.
"""

from tracking.comparison import compare
from tracking.mlflow.estimates import track_emergence, track_estimates, track_features
from tracking.mlflow.models import download_proxy
from tracking.mlflow.promotion import promote
from tracking.mlflow.proxy_run import TrackedProxy, track_proxy
from tracking.mlflow.replaying import TrackedSweep, replay, track
from tracking.mlflow.tracker import Tracker
from tracking.reports.page import report
from tracking.reports.plot import plot_depth

__all__ = [
    "TrackedProxy",
    "TrackedSweep",
    "Tracker",
    "compare",
    "download_proxy",
    "plot_depth",
    "promote",
    "replay",
    "report",
    "track",
    "track_emergence",
    "track_estimates",
    "track_features",
    "track_proxy",
]
