"""Sends golden requests to pods and keeps what became of them.

Each pod is asked once its Triton is ready, again when its Triton was started anew, when the
ConfigMap changed, and on a schedule. A pod that could not be asked has no result, and is asked
again.

`Verification` looks after one ConfigMap of one ModelDeployment and knows no event loop's time but
its clock's; `GoldenRunner` keeps one task for each. The ConfigMap is the user's, without our
labels, so no watch shows it: it is read when somebody is to be asked.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from tidegate.actions import Verify
from tidegate.diagnosis import is_ready
from tidegate.golden import (
    GoldenError,
    GoldenRequest,
    parse,
)
from tidegate.observed import GoldenResult, Object
from tidegate.resources.pod import TRITON
from tidegate.runtime.cache import Key
from tidegate.runtime.golden_client import PodClient, UnknownError
from tidegate.runtime.kinds import Kind, kind_of
from tidegate.runtime.kube import ForbiddenError, KubeError, NotFoundError

log: Final = structlog.get_logger(__name__)

PODS_AT_ONCE: Final = 16
"""Asked at the same time, of all ModelDeployments together; a pod gets one request at a time."""
OF_ONE_AT_ONCE: Final = 4
"""Of these for one ModelDeployment: its hanging pods must not hold up the others."""
FRESH_S: Final = 30.0
"""The ConfigMap is read again when somebody is to be asked and it was read longer ago."""
MISSING_AGAIN_S: Final = 5.0
"""It does not exist or could not be read: look again after so long."""
FIRST_AGAIN_S: Final = 1.0
LATER_AGAIN_S: Final = 10.0
"""A pod that could not be asked is tried again after the first, twice that ... at most this."""
TELL_AFTER_TRIES: Final = 3
"""So many times in vain, and `GoldenRunner.problems` says so."""
CONFIG_MAP: Final = kind_of("v1", "ConfigMap")


class Reads(Protocol):
    """The part of `tidegate.runtime.kube.Kube` that is needed."""

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        """One object."""


@dataclass
class _Pod:
    """One pod's turn.

    Attributes:
        document: as last seen.
        asked_as: restarts of its Triton, and version of the ConfigMap, when it was last asked.
        asked_at: when that ended; monotonic, seconds.
        vain: times in a row that it could not be asked.
        why: the last time.
        task: asks it now.
    """

    document: Object
    asked_as: tuple[int, str] | None = None
    asked_at: float = 0.0
    vain: int = 0
    why: str = ""
    task: asyncio.Task[None] | None = None

    def due_at(self, as_: tuple[int, str], every_s: float | None) -> float | None:
        """When to ask it next; None: only when something changes."""
        if self.asked_as is None or (self.asked_as != as_ and not self.vain):
            return 0.0
        if self.vain:
            return self.asked_at + min(LATER_AGAIN_S, FIRST_AGAIN_S * 2.0 ** min(self.vain - 1, 9))
        return None if every_s is None else self.asked_at + every_s


class Verification:
    """The golden requests of one ModelDeployment, out of one ConfigMap.

    Args:
        key: whose.
        reads: the API server.
        client: asks pods.
        slots: how many pods may be asked at the same time, of all.
        changed: called when `look` should be called.
        told: called when `results` or `problem` changed.
        now: wall clock, UTC.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        key: Key,
        reads: Reads,
        client: PodClient,
        slots: asyncio.Semaphore,
        changed: Callable[[], None],
        told: Callable[[], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._key = key
        self._reads = reads
        self._client = client
        self._slots = slots
        self._own_slots = asyncio.Semaphore(OF_ONE_AT_ONCE)
        self._changed = changed
        self._told = told
        self._now = now
        self._clock = clock
        self._verify: Verify | None = None
        self._pods: dict[str, _Pod] = {}
        self._requests: tuple[GoldenRequest, ...] = ()
        self._version = ""
        self._read_at: float | None = None
        self._read_again_s = FRESH_S
        self._config_problem = ""
        self._told_problem = ""
        self.results: dict[str, GoldenResult] = {}

    @property
    def problem(self) -> str:
        """Why pods cannot be asked; empty: nothing is in the way."""
        if self._config_problem:
            return self._config_problem
        for uid, pod in self._pods.items():
            if pod.vain >= TELL_AFTER_TRIES and uid not in self.results:
                name = pod.document["metadata"]["name"]
                return f"pod {name} cannot be sent golden requests: {pod.why}. It is tried again."
        return ""

    def want(self, verify: Verify, pods: Iterable[Object]) -> None:
        """Look after these pods from now on, as they are now."""
        old = self._verify
        if old is not None and (old.config_map, old.model) != (verify.config_map, verify.model):
            self.close()
            self._read_at, self._version, self._config_problem = None, "", ""
        self._verify = verify
        documents = {pod["metadata"]["uid"]: pod for pod in pods}
        for uid in set(self._pods) - set(verify.pods):
            self._drop(uid)
        for uid in verify.pods:
            document = documents.get(uid)
            if document is None:
                self._drop(uid)
            elif uid not in self._pods:
                self._pods[uid] = _Pod(document)
            else:
                pod = self._pods[uid]
                if _restarts(document) != _restarts(pod.document) and uid in self.results:
                    del self.results[uid]  # that was another process
                    self._told()
                pod.document = document
        self._changed()

    async def look(self) -> float | None:
        """Read the ConfigMap if it is time, ask who is due. Returns when to look again, seconds."""
        verify = self._verify
        if verify is None:
            return None
        waited_s = None if self._read_at is None else self._clock() - self._read_at
        if waited_s is None or (
            waited_s >= self._read_again_s and (self._config_problem or any(self._due(verify)))
        ):
            await self._read(verify.config_map)
            verify = self._verify
            if verify is None or self._read_at is None:  # another was wanted meanwhile
                return 0.0
            waited_s = self._clock() - self._read_at
        if self._config_problem:
            return max(0.0, self._read_again_s - waited_s)
        for pod in self._due(verify):
            pod.task = asyncio.create_task(self._ask(verify, pod))
        times = [
            at
            for pod in self._idle()
            if (at := pod.due_at(self._as(pod), verify.every_s)) is not None
        ]
        return max(0.0, min(times) - self._clock()) if times else None

    async def settled(self) -> None:
        """Wait until nobody is being asked."""
        await asyncio.gather(
            *(p.task for p in self._pods.values() if p.task), return_exceptions=True
        )

    def close(self) -> None:
        """Stop asking, and forget."""
        for uid in list(self._pods):
            self._drop(uid)

    def _drop(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None and pod.task is not None:
            pod.task.cancel()
        self.results.pop(uid, None)

    def _idle(self) -> list[_Pod]:
        """Who could be asked: Ready, and nobody does it already."""
        return [
            pod
            for pod in self._pods.values()
            if pod.task is None and is_ready(pod.document) and pod.document["status"].get("podIP")
        ]

    def _due(self, verify: Verify) -> list[_Pod]:
        now = self._clock()
        return [
            pod
            for pod in self._idle()
            if (at := pod.due_at(self._as(pod), verify.every_s)) is not None and at <= now
        ]

    def _as(self, pod: _Pod) -> tuple[int, str]:
        return _restarts(pod.document), self._version

    async def _read(self, name: str) -> None:
        where = f"goldenRequests.configMapName: ConfigMap {self._key.namespace}/{name}"
        read_again_s = FRESH_S
        requests, version = self._requests, self._version
        try:
            config_map = await self._reads.get(CONFIG_MAP, self._key.namespace, name)
        except NotFoundError:
            read_again_s = MISSING_AGAIN_S
            problem = f"{where} does not exist. Create it, or correct the name."
        except ForbiddenError as error:
            problem = f"{where} may not be read: {error}. Grant the operator get on it."
        except KubeError as error:
            read_again_s = MISSING_AGAIN_S
            # What was read before still holds.
            problem = self._config_problem
            if not self._version:
                problem = f"{where} cannot be read: {error}"
        else:
            problem = self._config_problem
            found = str(config_map["metadata"].get("resourceVersion"))
            if found != version or problem:
                try:
                    # Beside the event loop: a large one takes a while.
                    requests = await asyncio.to_thread(parse, config_map)
                    version, problem = found, ""
                except GoldenError as error:
                    problem = f"goldenRequests.configMapName: {error}"
        if self._verify is None or self._verify.config_map != name:
            return
        self._requests, self._version, self._config_problem = requests, version, problem
        self._read_at, self._read_again_s = self._clock(), read_again_s
        self._tell_problem()

    async def _ask(self, verify: Verify, pod: _Pod) -> None:
        uid, name = pod.document["metadata"]["uid"], pod.document["metadata"]["name"]
        as_ = self._as(pod)
        outcome: tuple[bool, str] | None = None
        try:
            requests = self._requests
            async with self._own_slots, self._slots:
                outcome = await self._client.verify(pod.document, requests, verify.model)
            if outcome[0] and verify.load is not None:
                # Longer than the others may wait for a slot.
                loaded, said = await self._client.load(
                    pod.document, requests, verify.model, verify.load
                )
                outcome = loaded, f"{outcome[1]}; {said}" if loaded else said
        except UnknownError as error:
            why = str(error)
        except Exception as error:  # a defect in reading one answer must not end the others' turns
            log.error("golden requests not sent", modeldeployment=str(self._key), exc_info=error)
            why = repr(error)
        pod.task = None
        pod.asked_at, pod.asked_as = self._clock(), as_
        if outcome is None:
            pod.vain, pod.why = pod.vain + 1, why
            log.debug("pod not asked", modeldeployment=str(self._key), pod=name, problem=why)
        else:
            pod.vain = 0
            if as_[0] == _restarts(pod.document):
                self._record(uid, name, *outcome)
        self._tell_problem()
        self._changed()

    def _record(self, uid: str, name: str, passed: bool, message: str) -> None:
        old = self.results.get(uid)
        self.results[uid] = GoldenResult(passed, message, self._now())
        if old is None or (old.passed, old.message) != (passed, message):
            log.info(
                "golden requests",
                modeldeployment=str(self._key),
                pod=name,
                passed=passed,
                reason=message,
            )
            self._told()

    def _tell_problem(self) -> None:
        if self.problem != self._told_problem:
            self._told_problem = self.problem
            self._told()


@dataclass
class _Kept:
    verification: Verification
    task: asyncio.Task[None] = field(repr=False)


class GoldenRunner:
    """Golden requests of all ModelDeployments.

    Args:
        reads: the API server.
        wake: told of a ModelDeployment whose results, or whose problem, changed.
        client: asks pods.
        now: wall clock, UTC.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        reads: Reads,
        wake: Callable[[Key], None],
        client: PodClient | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reads = reads
        self._wake = wake
        self._client = client or PodClient()
        self._now = now
        self._clock = clock
        self._slots = asyncio.Semaphore(PODS_AT_ONCE)
        self._kept: dict[Key, dict[str, _Kept]] = {}
        """By ModelDeployment, then by ConfigMap."""

    def want(self, key: Key, verify: Iterable[Verify], pods: Iterable[Object]) -> None:
        """Send these golden requests from now on, and forget what came of all others.

        Args:
            key: the ModelDeployment.
            verify: as its last plan says; one for each ConfigMap.
            pods: its pods as they are now; those that `verify` does not name are left out.
        """
        wanted = {one.config_map: one for one in verify}
        there, documents = self._kept.setdefault(key, {}), tuple(pods)
        for gone in set(there) - set(wanted):
            _end(there.pop(gone))
        for name, one in wanted.items():
            if name not in there:
                there[name] = self._begun(key)
            there[name].verification.want(one, documents)
        if not there:
            del self._kept[key]

    def _begun(self, key: Key) -> _Kept:
        changed = asyncio.Event()
        verification = Verification(
            key,
            self._reads,
            self._client,
            self._slots,
            changed.set,
            lambda: self._wake(key),
            self._now,
            self._clock,
        )
        task = asyncio.create_task(_keep_looking(verification, changed), name=f"golden {key}")
        return _Kept(verification, task)

    def results(self, key: Key) -> Mapping[str, GoldenResult]:
        """By pod UID; a pod that was not asked yet, or could not be, is left out."""
        kept = self._kept.get(key, {}).values()
        return {uid: r for one in kept for uid, r in one.verification.results.items()}

    def problems(self, key: Key) -> Mapping[str, str]:
        """Why golden requests cannot be sent, by ConfigMap; none where nothing is in the way."""
        kept = self._kept.get(key, {}).items()
        return {name: why for name, one in kept if (why := one.verification.problem)}

    async def close(self) -> None:
        """Stop all, and close open connections."""
        kept = [one for there in self._kept.values() for one in there.values()]
        self._kept.clear()
        for one in kept:
            _end(one)
        await asyncio.gather(*(one.task for one in kept), return_exceptions=True)
        await self._client.close()


def _end(kept: _Kept) -> None:
    kept.task.cancel()
    kept.verification.close()


async def _keep_looking(verification: Verification, changed: asyncio.Event) -> None:
    while True:
        changed.clear()
        try:
            after_s = await verification.look()
        except Exception as error:  # a defect must not end the schedule
            log.error("golden requests not looked after", exc_info=error)
            after_s = LATER_AGAIN_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await changed.wait()


def _restarts(pod: Object) -> int:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == TRITON:
            return int(status.get("restartCount") or 0)
    return 0
