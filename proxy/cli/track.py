"""`emergence track`: a results folder into MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.console import during, progress, screen
from proxy.cli.groups import TrackingUri


def track(
    results: Annotated[
        str,
        typer.Argument(
            help="Results folder or URL of `emergence sweep`, or a table of `measure`, `features` or `estimate`."
        ),
    ],
    tracking_uri: TrackingUri = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment; created if missing.")] = "emergence",
    as_json: Annotated[bool, typer.Option("--json", help="Print the runs' ids as JSON.")] = False,
) -> None:
    """Log a sweep to MLflow: one run for the sweep, one below it per model and corpus.

    What is tracked already is left alone: repeat it after the sweep was resumed or the server was down. A table of
    emergence, features or estimates becomes one run with its figures.

    Example: `emergence track results/demo --tracking-uri http://127.0.0.1:5000`
    """
    import json
    import shlex
    import sys

    from estimators.contracts.secrets import masked
    from extraction.tables import read_table
    from proxy.cli.fetching import local_results
    from tracking import track as replay
    from tracking import track_emergence, track_estimates, track_features

    if (table := Path(results)).is_file():
        frame = read_table(table)
        log = track_emergence if "ie_bits" in frame else track_estimates if "estimate" in frame else track_features
        with during(f"Tracking {results}"):
            run_id = log(frame, tracking_uri=tracking_uri, experiment=experiment)
        if as_json:
            sys.stdout.write(json.dumps({"run_id": run_id}) + "\n")
        else:
            screen.print(f"Tracked {results}: run {run_id}.", highlight=False, soft_wrap=True)
        return
    with local_results(results) as folder, progress("Tracking") as report:
        found = replay(folder, tracking_uri=tracking_uri, experiment=experiment, progress=report, display_name=results)
    if as_json:
        sys.stdout.write(json.dumps({"run_id": found.run_id, "children": found.children, "new": found.new}) + "\n")
        return
    was = f"{found.new} new" if found.new else "nothing new, all were already tracked"
    screen.print(
        f"Tracked {results}: run {found.run_id} with {len(found.children)} runs below it ({was}).",
        highlight=False,
        soft_wrap=True,
    )
    store = f" --tracking-uri {shlex.quote(masked(tracking_uri))}" if tracking_uri else ""
    where = "" if experiment == "emergence" else f" --experiment {shlex.quote(experiment)}"
    screen.print(f"Open it: emergence ui{store}{where}", highlight=False, soft_wrap=True)
