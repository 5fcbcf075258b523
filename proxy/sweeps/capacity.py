"""What a sweep needs of a cluster, and a check that there is room for it before it starts."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence

from estimators.base import InputError
from proxy.sweeps.cluster import Cluster
from proxy.sweeps.config import Resources
from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import Demand, Node, demand, misfits
from proxy.sweeps.slots import Group
from proxy.sweeps.store.results import Peaks

FIRST_NODE = 900.0  # seconds that a growing cluster may take to bring a node that is asked for
LOOK = 1.0  # seconds between looks


def grouped(jobs: Sequence[Job], default: Resources, nodes: Sequence[Node], peaks: Mapping[str, Peaks]) -> list[Group]:
    """Group jobs by model, the largest demand first, else in the order of the config."""
    groups = []
    for _, run in itertools.groupby(jobs, key=lambda job: job.load_key):
        members = deque(run)
        first = members[0]
        wanted = demand(first.model, default, nodes, peaks.get(first.model_name), twin=first.controls)
        groups.append(Group(members, wanted))
    return sorted(groups, key=lambda group: group.demand, reverse=True)


def await_first_node(cluster: Cluster) -> None:
    """Wait for the first node with cores: what models ask for depends on its GPUs."""
    end = time.monotonic() + FIRST_NODE
    while time.monotonic() < end:
        if any(node.total.cpus for node in cluster.nodes().values()):
            return
        time.sleep(LOOK)


def refuse_what_cannot_fit(groups: Sequence[Group], cluster: Cluster) -> None:
    """Say before starting which models no node has room for.

    Raises:
        InputError: naming them.
    """
    nodes = list(cluster.nodes().values())
    large = [group for group in groups if misfits(group.demand, nodes)]
    if large:
        names = ", ".join(dict.fromkeys(group.jobs[0].model.id for group in large))
        room = max((node.total for node in nodes), default=Demand(0, 0, 0))
        raise InputError(
            f"No node has room for {names}: {large[0].demand} needed, the largest node has {room}; leave such "
            "models out, set their resources, or join a larger cluster (with 'workers' set: one that grows)."
        )
