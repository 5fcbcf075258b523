"""`emergence ui`: MLflow's user interface."""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.cli.console import screen
from proxy.cli.groups import TrackingUri


def ui(
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")] = 5000,
    experiment: Annotated[str, typer.Option(help="Experiment whose page is opened.")] = "emergence",
    browser: Annotated[bool, typer.Option(help="Open the page in your browser.")] = True,
) -> None:
    """Open MLflow's user interface on your runs; Ctrl-C ends it.

    It listens on this machine alone. Given a server's address it starts nothing and only opens the page.

    Example: `emergence ui --tracking-uri postgresql://user@host/mlflow`
    """
    import webbrowser

    from rich.text import Text

    from estimators.contracts.secrets import masked
    from proxy.cli.stopping import kept
    from tracking.mlflow.server import user_interface

    screen.print("Starting ...", highlight=False)
    try:
        with (
            kept("The server stops; tracked runs are kept."),
            user_interface(tracking_uri, port=port, experiment=experiment) as shown,
        ):
            # the part behind # is a page of ours, no secret: only the server's address is masked
            page = masked(shown.uri) + shown.page.removeprefix(shown.uri)
            screen.print(Text(f"Your runs: {page}"), soft_wrap=True)
            if browser and screen.is_terminal:
                webbrowser.open(shown.page)
            if shown.process is not None:
                screen.print("Ctrl-C stops the server.", highlight=False)
                if code := shown.process.wait():
                    screen.print(f"MLflow's server exited with code {code}.", style="red")
                    raise typer.Exit(1)
    except KeyboardInterrupt:
        screen.print("Ended.", highlight=False)
