"""The loop that keeps the workers of a cluster busy until every job is done or has failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from proxy.sweeps.capacity import FIRST_NODE, await_first_node, grouped, refuse_what_cannot_fit
from proxy.sweeps.cluster import Cluster, WorkerLostError
from proxy.sweeps.config import SweepConfig
from proxy.sweeps.jobs import Job
from proxy.sweeps.placement import Demand, misfits, place
from proxy.sweeps.slots import Due, Event, Group, Slot, Starts, suits
from proxy.sweeps.store.claims import Claims
from proxy.sweeps.store.results import Found, ResultsStore
from proxy.sweeps.worker import Outcome, failure

TICK = 1.0  # seconds between looks at the cluster
UNPLACED = 60.0  # seconds that models wait for a node with room before they are given up
ELSEWHERE = 2.0  # seconds between looks at jobs that another driver works on


class Driver:
    """Keeps as many workers as fit busy.

    Large demands come first; a worker takes one group after another and ends when no group suits it. What a lost worker
    held goes back to the queue, and only the job it was at counts as tried. Jobs that another driver has claimed are
    waited for.
    """

    def __init__(
        self,
        config: SweepConfig,
        jobs: Sequence[Job],
        cluster: Cluster,
        results: ResultsStore,
        claims: Claims,
        found: Found,
        on_event: Callable[[Event], None],
    ) -> None:
        self.config = config
        self.cluster = cluster
        self.results = results
        self.claims = claims
        self.found = found
        self.on_event = on_event
        self.failed: list[dict[str, Any]] = []
        self.attempts: dict[str, int] = {}
        self.slots: list[Slot] = []
        self.elsewhere: list[Job] = []
        if config.workers is not None:  # a cluster that grows
            await_first_node(cluster)
        self.queue = self._grouped(jobs)
        self._due = Due()
        self._starts = Starts()
        self._unplaced_since: float | None = None

    def _grouped(self, jobs: Sequence[Job]) -> list[Group]:
        return grouped(jobs, self.config.resources, list(self.cluster.nodes().values()), self.found.peaks)

    def refuse_what_cannot_fit(self) -> None:
        """Say before starting which models no node has room for; a cluster with `workers` set may still grow.

        Raises:
            InputError: naming them.
        """
        if self.config.workers is None:
            refuse_what_cannot_fit(self.queue, self.cluster)

    def run(self) -> Iterator[Job]:
        """Work until every job is done or has failed; yields each job that is over."""
        try:
            while self.queue or self.elsewhere or any(slot.group for slot in self.slots):
                self.claims.renew()
                yield from self._look_elsewhere()
                yield from self._give_up_unplaced()
                yield from self._give_up_starting()
                self._grow()
                self._ask_for_steps()
                if not self.slots:
                    time.sleep(TICK / 4)
                    continue
                ready = set(self.cluster.wait([slot.waiting_on for slot in self.slots], TICK))
                for slot in [slot for slot in self.slots if slot.waiting_on in ready]:
                    yield from self._advance(slot)
        finally:
            self._stop_all()
            self.claims.release_all()

    def _stop_all(self) -> None:
        for slot in self.slots:
            self.cluster.stop_worker(slot.handle)
        self.slots.clear()

    def _grow(self) -> None:
        """Start workers for waiting groups while there is room, the largest demand first."""
        if not self.queue or self._starts.paused or not self._due("cluster", TICK):
            return
        nodes = self.cluster.nodes()
        rooms = {name: node.total for name, node in nodes.items()}
        for slot in self.slots:
            if slot.node in rooms:
                rooms[slot.node] = rooms[slot.node].without(slot.demand)
        waiting = list(self.queue)
        for slot in self.slots:
            if slot.group is None:  # starting: it will take one
                expected = next((group for group in waiting if suits(group, slot)), None)
                if expected is not None:
                    waiting.remove(expected)
        for group in waiting:
            if self.config.workers is not None and len(self.slots) >= self.config.workers:
                break
            node = place(group.demand, rooms)
            if node is not None:
                rooms[node] = rooms[node].without(group.demand)
            elif self.config.workers is None:
                continue
            elif misfits(group.demand, list(nodes.values())):
                self.on_event(Event("waiting", group.jobs[0], f"no node has room for {group.demand} yet"))
            # Without room it is asked for all the same, so that a cluster that can grow does.
            handle = self.cluster.start_worker(group.demand)
            self.slots.append(Slot(handle, group.demand, node, self.cluster.where(handle)))

    def _give_up_unplaced(self) -> Iterator[Job]:
        """Fail what has waited too long while nothing runs and no node has room for it."""
        unplaced = self._unplaced()
        if not unplaced:
            self._unplaced_since = None
            return
        self._unplaced_since = self._unplaced_since or time.monotonic()
        if time.monotonic() - self._unplaced_since > (UNPLACED if self.config.workers is None else FIRST_NODE):
            self._stop_all()
            for group in unplaced:
                yield from self._give_up(group, "NoRoom", f"no living node has room for {group.demand}")

    def _unplaced(self) -> list[Group]:
        """Return the groups that no node has room for; none while a worker is at work or may still start."""
        if not self.queue or any(slot.group for slot in self.slots):
            return []
        nodes = list(self.cluster.nodes().values())
        if not all(misfits(slot.demand, nodes) for slot in self.slots):
            return []
        return [group for group in self.queue if misfits(group.demand, nodes)]

    def _give_up_starting(self) -> Iterator[Job]:
        """Fail what is left when workers keep dying before they take a job and none lives."""
        if self.slots or not self._starts.hopeless:
            return
        for group in list(self.queue):
            yield from self._give_up(group, "WorkerLost", f"no worker stayed alive to run a job: {self._starts.reason}")

    def _give_up(self, group: Group, kind: str, reason: str) -> Iterator[Job]:
        """Fail those jobs of a waiting group that no other driver works on."""
        self.queue.remove(group)
        yield from self._claim(group)
        for job in group.jobs:
            yield self._fail(job, failure(job, kind, reason))

    def _look_elsewhere(self) -> Iterator[Job]:
        """Take over the results of other drivers, and the jobs they have given up."""
        if not self.elsewhere or not self._due("elsewhere", ELSEWHERE):
            return
        state = self._state([job.key for job in self.elsewhere])
        returned = []
        for job in list(self.elsewhere):
            settled = self._settled(job, state)
            if settled or self.claims.free(job.key):
                self.elsewhere.remove(job)
                if settled:
                    yield job
                else:
                    returned.append(job)
        self.queue = sorted([*self.queue, *self._grouped(returned)], key=lambda group: group.demand, reverse=True)

    def _state(self, keys: Sequence[str]) -> Found:
        """Look what became of `keys`; listing all tables is slow, so only where a broken one was found before."""
        return self.results.find(keys, tables=any(key in self.found.rejected for key in keys))

    def _settled(self, job: Job, state: Found) -> bool:
        """Whether another driver has done `job`, or failed at it, since this one began."""
        if job.key in state.failed and state.failed[job.key] != self.found.failed.get(job.key):
            self.failed.append(self.results.record(job.key) or {})
            return True
        return job.key in state.done

    def _ask_for_steps(self) -> None:
        """Tell how far the running jobs are, as of the last time they were asked."""
        if not self._due("steps", TICK):
            return
        for slot in self.slots:
            if slot.job is None:
                continue
            if slot.steps is None:
                slot.steps = self.cluster.steps(slot.handle)
            elif self.cluster.wait([slot.steps], 0):
                answered, slot.steps = slot.steps, None
                try:
                    self.on_event(Event("steps", slot.job, steps=self.cluster.get(answered)))
                except WorkerLostError:
                    continue  # its job's own answer will say so

    def _advance(self, slot: Slot) -> Iterator[Job]:
        """Take what a worker has ready and give it the next job."""
        try:
            answer = self.cluster.get(slot.waiting_on)
        except WorkerLostError as error:
            self.slots.remove(slot)
            yield from self._lost(slot, error)
            return
        if slot.job is None:
            slot.node = answer["node"]
            self._starts.lived()
        else:
            yield from self._over(slot, slot.job, answer)
        while slot.group is None or not slot.group.jobs:
            slot.group = next((group for group in self.queue if suits(group, slot)), None)
            if slot.group is None:
                self.slots.remove(slot)
                self.cluster.stop_worker(slot.handle)
                return
            self.queue.remove(slot.group)
            yield from self._claim(slot.group)
        slot.job = slot.group.jobs.popleft()
        slot.started = time.monotonic()
        slot.waiting_on = self.cluster.run(slot.handle, slot.job)
        self.on_event(Event("start", slot.job))

    def _claim(self, group: Group) -> Iterator[Job]:
        """Keep of a group what no other driver has done or works on."""
        keys = [job.key for job in group.jobs]
        unclaimed = [key for key in keys if key not in self.claims.held]
        self.claims.take(unclaimed)
        state = self._state(unclaimed)
        for job in list(group.jobs):
            if job.key in unclaimed and self._settled(job, state):
                self.claims.release(job.key)
                group.jobs.remove(job)
                yield job
            elif job.key not in self.claims.held:
                group.jobs.remove(job)
                self.elsewhere.append(job)
                self.on_event(Event("elsewhere", job))

    def _over(self, slot: Slot, job: Job, outcome: Outcome) -> Iterator[Job]:
        """Keep a job's result, or try it again, or keep why it failed."""
        slot.job = slot.steps = None
        if outcome.table is not None:
            self.results.write_done(job.key, outcome.table, outcome.record, outcome.windows)
            self.claims.release(job.key)
            self.on_event(Event("done", job, str(outcome.record.get("remark") or ""), outcome.record["seconds"]))
            yield job
        elif outcome.trouble is not None and slot.group is not None and self._again(job, outcome.record["error"]):
            slot.group.jobs.append(job)
            if outcome.trouble == "memory":
                slot.group.demand = self._more(slot.group.demand)
                self.queue.insert(0, slot.group)
                slot.group = None
        else:
            yield self._fail(job, outcome.record)

    def _lost(self, slot: Slot, error: WorkerLostError) -> Iterator[Job]:
        """Give a lost worker's jobs back; the one it was at may have been the cause."""
        if slot.group is None:
            self._starts.died(slot.started, str(error))
            return
        if slot.job is not None:
            if self._again(slot.job, str(error)):
                slot.group.jobs.append(slot.job)
            else:
                record = failure(slot.job, "WorkerLost", str(error))
                yield self._fail(slot.job, {**record, "seconds": round(time.monotonic() - slot.started, 3)})
        if slot.group.jobs:
            if error.memory:
                slot.group.demand = self._more(slot.group.demand)
            self.queue.insert(0, slot.group)

    def _more(self, wanted: Demand) -> Demand:
        """Return a larger demand if a node could hold it."""
        larger = wanted.more()
        return wanted if misfits(larger, list(self.cluster.nodes().values())) else larger

    def _again(self, job: Job, reason: str) -> bool:
        """Whether `job` may be tried once more."""
        self.attempts[job.key] = self.attempts.get(job.key, 0) + 1
        if self.attempts[job.key] > self.config.retries:
            return False
        self.on_event(Event("retry", job, reason.split("\n")[0]))
        return True

    def _fail(self, job: Job, record: dict[str, Any]) -> Job:
        self.results.write_failed(job.key, record)
        self.claims.release(job.key)
        self.failed.append({"key": job.key, **record})
        self.on_event(Event("fail", job, record["error"], record.get("seconds")))
        return job
