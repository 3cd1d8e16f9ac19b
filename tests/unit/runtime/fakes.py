"""A clock that only moves when told, and an API server of a few dictionaries."""

import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from tidegate.runtime.kinds import Kind
from tidegate.runtime.kube import (
    AlreadyExistsError,
    ConflictError,
    KubeError,
    NotFoundError,
)

UID_OF_M = "uid-of-m"


@dataclass
class Clock:
    """Monotonic seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class FakeServer:
    """What `Kube` offers to leadership and sweeps."""

    objects: dict[tuple[Kind, str, str], dict[str, Any]] = field(default_factory=dict)
    fail: list[KubeError] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, kind: Kind, document: dict[str, Any]) -> dict[str, Any]:
        document = copy.deepcopy(document)
        meta = document["metadata"]
        meta["resourceVersion"] = str(next(self._versions))
        meta.setdefault("uid", f"uid-{meta['name']}")
        self.objects[kind, meta["namespace"], meta["name"]] = document
        return copy.deepcopy(document)

    def _may_fail(self) -> None:
        if self.fail:
            raise self.fail.pop(0)

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        self._may_fail()
        self.reads.append(name)
        try:
            return copy.deepcopy(self.objects[kind, namespace, name])
        except KeyError:
            raise NotFoundError("no such object", code=404) from None

    async def find(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def lease(
        self, kind: Kind, namespace: str, document: dict[str, Any], *, timeout_s: float
    ) -> dict[str, Any]:
        self._may_fail()
        name = document["metadata"]["name"]
        live = self.objects.get((kind, namespace, name))
        version = document["metadata"].get("resourceVersion")
        if version is None and live is not None:
            raise AlreadyExistsError("exists", code=409)
        if version is not None and (live is None or live["metadata"]["resourceVersion"] != version):
            raise ConflictError("changed", code=409)
        return self.put(kind, document)

    async def pages(
        self, kind: Kind, namespace: str | None, **_: Any
    ) -> AsyncIterator[dict[str, Any]]:
        self._may_fail()
        items = [
            copy.deepcopy(o)
            for (k, ns, _), o in self.objects.items()
            if k == kind and namespace in (None, ns)
        ]
        version = str(next(self._versions))
        half = len(items) // 2
        yield {"metadata": {"resourceVersion": version, "continue": "x"}, "items": items[:half]}
        yield {"metadata": {"resourceVersion": version}, "items": items[half:]}
