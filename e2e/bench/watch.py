"""Watches a kind and notes when each event arrived, on the clock that the audit log uses too."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from e2e.cluster.kube import KubeClient, KubeError, NotReached, Object

SERVER_TIMEOUT_SECONDS = 3600


@dataclass(frozen=True)
class Seen:
    """One event.

    Attributes:
        at: arrival here, seconds since the epoch.
        type: ADDED, MODIFIED or DELETED.
        object: as it was then.
    """

    at: float
    type: str
    object: Object

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.object["metadata"]["name"])


class Watching:
    """A watch of one kind in one namespace, in a thread of its own, until the block ends.

    Args:
        kubeconfig: credentials.
        api_version: for example ``apps/v1``.
        kind: for example ``Deployment``.
        namespace: where.
        told: called in the thread with each event.
    """

    def __init__(
        self,
        kubeconfig: Path,
        api_version: str,
        kind: str,
        namespace: str,
        told: Callable[[Seen], None] = lambda seen: None,
    ) -> None:
        self._client = KubeClient(kubeconfig, user_agent="tidegate-bench")
        self._path = self._client.path(api_version, kind, namespace)
        self._told = told
        self._events: list[Seen] = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended = True
        self._client.close()

    def _run(self) -> None:
        version = ""
        while not self._ended:
            params = {"watch": "1", "timeoutSeconds": str(SERVER_TIMEOUT_SECONDS)}
            if version:
                params["resourceVersion"] = version
            try:
                with self._client.http.stream(
                    "GET", self._path, params=params, timeout=httpx.Timeout(10.0, read=None)
                ) as response:
                    if response.status_code != 200:
                        raise KubeError(response.status_code, "", "watch refused")
                    for line in response.iter_lines():
                        version = self._take(json.loads(line), time.time())
            except (httpx.HTTPError, KubeError, RuntimeError):
                # Closed by us, or by a server that restarts: begin anew, from the present state.
                version = ""
                time.sleep(0.2)

    def _take(self, event: Object, at: float) -> str:
        if event["type"] in ("ERROR", "BOOKMARK"):
            return ""
        seen = Seen(at, event["type"], event["object"])
        with self._changed:
            self._events.append(seen)
            self._changed.notify_all()
        self._told(seen)
        return str(seen.object["metadata"]["resourceVersion"])

    def events(self) -> list[Seen]:
        """All events so far, oldest first."""
        with self._changed:
            return list(self._events)

    def first(
        self, wanted: Callable[[Seen], bool], what: str, *, timeout_seconds: float = 120.0
    ) -> Seen:
        """The first event that is wanted, now or when it comes.

        Raises:
            NotReached: it did not come.
        """
        deadline, looked = time.monotonic() + timeout_seconds, 0
        with self._changed:
            while True:
                for seen in self._events[looked:]:
                    if wanted(seen):
                        return seen
                looked = len(self._events)
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise NotReached(f"{what}: not within {timeout_seconds:.0f} s")
