"""Where samples and labels are posted.

Who posts brings a token of the cluster. The API server is asked with that token, not with rights
of our own, whether its bearer may `report` on the ModelDeployment: a verb that exists in no API,
so a role gives it and gives nothing else with it.
"""

import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
import structlog
from aiohttp import web

from tidegate.api import names, units
from tidegate.quality.policy import ANNOTATION, Policy
from tidegate.quality.sample import SampleError, read_labels, read_samples
from tidegate.runtime.quality.store import FullError, Store, Taken

log: Final = structlog.get_logger(__name__)

VERB: Final = "report"
BODY_BYTES: Final = 1 << 20
BODY_TIMEOUT_S: Final = 10.0
AT_ONCE: Final = 4
"""Bodies that are read, understood and kept at a time: a thousand samples take some megabytes."""
MOST_IN_HAND: Final = 200
"""Requests at a time; more are told to come again."""
ASK_TIMEOUT_S: Final = 10.0
REMEMBERED_S: Final = 60.0
"""So long a right that was found is not asked for again."""
MOST_REMEMBERED: Final = 10_000
NAME: Final = "[a-z0-9-]{1,63}"
_TOKEN: Final = re.compile(r"Bearer ([A-Za-z0-9._~+/=-]{1,8192})")

T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """What is known of a ModelDeployment whose quality is asked.

    Attributes:
        policy: what is asked; None: it cannot be used.
        revisions: of which samples and labels are taken.
    """

    policy: Policy | None
    revisions: frozenset[str]


class Worker:
    """The store, in a thread of its own: it is for one thread, and its disc may be slow.

    Attributes:
        versions: by model, a number that grows with each change of what is kept of it.
    """

    def __init__(self, store: Store) -> None:
        self.versions: Counter[str] = Counter()
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def do(self, work: Callable[[Store], T]) -> T:
        """What comes of work that reads the store."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._store)

    async def change(self, model: str, work: Callable[[Store], T]) -> T:
        """What comes of work that changes what is kept of a model."""
        try:
            return await self.do(work)
        finally:
            self.versions[model] += 1

    def close(self) -> None:
        """End the thread, then close the store."""
        self._thread.shutdown()
        self._store.close()


class RefusedError(Exception):
    """The bearer may not do this.

    Attributes:
        status: 401 where the token is not accepted, 403, or 502 without an answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Access:
    """Asks the API server who may report.

    Args:
        server: its address.
        session: without credentials of its own.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        server: str,
        session: aiohttp.ClientSession,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._session = session
        self._clock = clock
        self._until: dict[tuple[bytes, str], float] = {}

    async def require(self, authorization: str, namespace: str, name: str) -> None:
        """Return where the bearer may report on this ModelDeployment.

        Raises:
            RefusedError: it may not, or the API server does not say.
        """
        found = _TOKEN.fullmatch(authorization)
        if found is None:
            raise RefusedError(401, "a bearer token of the cluster is needed")
        model = f"{namespace}/{name}"
        key = (hashlib.sha256(found[1].encode()).digest(), model)
        now = self._clock()
        if self._until.get(key, 0.0) > now:
            return
        attributes = {
            "group": names.GROUP,
            "resource": names.PLURAL,
            "verb": VERB,
            "namespace": namespace,
            "name": name,
        }
        if not await self._allowed(found[1], attributes):
            raise RefusedError(403, f"no right to {VERB} on modeldeployments {name} in {namespace}")
        if len(self._until) >= MOST_REMEMBERED:
            self._until.clear()
        self._until[key] = now + REMEMBERED_S

    async def _allowed(self, token: str, attributes: Mapping[str, str]) -> bool:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        try:
            async with (
                asyncio.timeout(ASK_TIMEOUT_S),
                self._session.post(
                    f"{self._server}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                    json=body,
                    headers={"Authorization": f"Bearer {token}"},
                    # A token goes to the API server and nowhere else.
                    allow_redirects=False,
                ) as response,
            ):
                if response.status == 401:
                    raise RefusedError(401, "the API server does not accept the token")
                if response.status == 403:
                    return False
                if response.status != 201:
                    raise RefusedError(502, f"the API server answers {response.status}")
                return bool((await response.json())["status"].get("allowed"))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
            raise RefusedError(502, "the API server does not answer") from error


@dataclass
class Intake:
    """The server.

    Attributes:
        access: who may report.
        worker: what is kept.
        known: what is asked, by namespace and name; kept up to date by others.
        looked: whether `known` holds what there is; before, nothing is taken or refused.
        now: Unix time.
    """

    access: Access
    worker: Worker
    known: dict[str, Known] = field(default_factory=dict)
    looked: bool = False
    now: Callable[[], float] = time.time
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _in_hand: int = 0

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[_as_json, self._bounded], client_max_size=BODY_BYTES)
        one = f"/api/v1/namespaces/{{namespace:{NAME}}}/modeldeployments/{{name:{NAME}}}"
        app.add_routes(
            [
                web.get("/healthz", _healthz),
                web.get("/readyz", self._readyz),
                web.post(f"{one}/samples", self._samples),
                web.post(f"{one}/labels", self._labels),
            ]
        )
        return app

    @web.middleware
    async def _bounded(
        self, request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        """Hold no more at a time than there is memory for."""
        if request.method == "POST" and self._in_hand >= MOST_IN_HAND:
            raise _later("too many requests at once")
        self._in_hand += 1
        try:
            answer: web.StreamResponse = await handler(request)
            return answer
        finally:
            self._in_hand -= 1

    async def _samples(self, request: web.Request) -> web.Response:
        model, policy, known = await self._asked(request)
        async with self._turn:
            found = read_samples(await _body(request))
            _refuse_strangers({s.revision for s in found} - known.revisions, known)
            redacted = [s.redacted(policy) for s in found]
            return await self._keep(model, lambda s: s.add_samples(model, redacted, self.now()))

    async def _labels(self, request: web.Request) -> web.Response:
        model, policy, known = await self._asked(request)
        async with self._turn:
            found = read_labels(await _body(request))
            named = {one.revision for one in found if one.revision is not None}
            _refuse_strangers(named - known.revisions, known)
            since_s = self.now() - units.duration_s(policy.keep)
            return await self._keep(model, lambda s: s.add_labels(model, found, since_s))

    async def _asked(self, request: web.Request) -> tuple[str, Policy, Known]:
        """The model, once the bearer may report on it and its policy wants it."""
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        await self.access.require(request.headers.get("Authorization", ""), namespace, name)
        model = f"{namespace}/{name}"
        if not self.looked:
            raise _later("it has only just begun")
        known = self.known.get(model)
        if known is None:
            raise web.HTTPNotFound(
                text=f"there is no ModelDeployment {name} with the annotation {ANNOTATION} in "
                f"{namespace}: nothing is recorded"
            )
        if known.policy is None:
            raise web.HTTPConflict(
                text=f"its annotation {ANNOTATION} cannot be used; see its status"
            )
        return model, known.policy, known

    async def _readyz(self, _: web.Request) -> web.Response:
        if not self.looked:
            raise _later("it has not seen the ModelDeployments yet")
        return web.Response(text="ok\n")

    async def _keep(self, model: str, work: Callable[[Store], Taken]) -> web.Response:
        taken = await self.worker.change(model, work)
        found = {"taken": taken.taken, "known": taken.known, "unknown": taken.unknown}
        return web.json_response({**found, "leftOut": list(taken.left_out)})


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(
            text=f"the body did not come within {BODY_TIMEOUT_S:.0f} s"
        ) from error


def _later(text: str) -> web.HTTPServiceUnavailable:
    return web.HTTPServiceUnavailable(text=f"{text}; try again", headers={"Retry-After": "1"})


def _refuse_strangers(strangers: set[str], known: Known) -> None:
    if strangers:
        raise SampleError(
            f"{sorted(strangers)[0]} is no revision of it; those are "
            f"{', '.join(sorted(known.revisions)) or 'none yet'}"
        )


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@web.middleware
async def _as_json(
    request: web.Request, handler: Callable[[web.Request], Any]
) -> web.StreamResponse:
    """Errors as JSON; what was posted is never repeated in them, nor in the log."""
    try:
        answer: web.StreamResponse = await handler(request)
        return answer
    except RefusedError as error:
        return _error(error.status, str(error))
    except SampleError as error:
        return _error(422, str(error))
    except FullError as error:
        return _error(507, str(error))
    except web.HTTPException as error:
        answer = _error(error.status, error.text or error.reason)
        if "Retry-After" in error.headers:
            answer.headers["Retry-After"] = error.headers["Retry-After"]
        return answer
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as error:
        log.error("a request failed", path=request.path, exc_info=error)
        return _error(500, "it failed; see the log")


def _error(status: int, text: str) -> web.Response:
    return web.Response(
        status=status, body=json.dumps({"error": text}), content_type="application/json"
    )
