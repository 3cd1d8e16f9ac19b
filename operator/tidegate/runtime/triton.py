"""What Triton itself says of a model that is not ready.

Triton stays up when a model does not load; the pod is then live and never ready, and only the
repository index tells why. It is asked while a pod's Triton runs and is not ready, and no more.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

import aiohttp
import structlog

from tidegate.api.names import REVISION_LABEL
from tidegate.diagnosis import is_loading
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY, restricted_key
from tidegate.resources.sidecar import (
    INTERNAL_PORT,
    REPOSITORY_INDEX_PATH,
    TRITON_HTTP_PORT,
)
from tidegate.resources.triton import RESTRICTED_HTTP_HEADER
from tidegate.runtime.tracing import OFF, Tracer

log: Final = structlog.get_logger(__name__)

TIMEOUT_S: Final = 2.0
FIRST_AGAIN_S: Final = 1.0
LATER_AGAIN_S: Final = 10.0
"""Once a reason is known, so often to see whether it is still true."""
PODS_ASKED: Final = 3
"""Of one ModelDeployment at a time: the others say the same."""
MAX_REMEMBERED: Final = 4096
MAX_ANSWER_BYTES: Final = 1 << 20


class RepositoryIndex:
    """Asks pods for their repository index, no oftener than needed.

    Args:
        clock: monotonic, seconds.
        tracer: is told when a pod is asked.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, tracer: Tracer = OFF
    ) -> None:
        self._clock = clock
        self._tracer = tracer
        self._session: aiohttp.ClientSession | None = None
        self._answers: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def models(self, pods: Iterable[Object]) -> tuple[dict[str, str], float | None]:
        """By pod UID, what Triton says of models that did not load; and when to ask again.

        A pod that does not answer is left out: unknown is not a reason.
        """
        loading = [pod for pod in pods if is_loading(pod)]
        if not loading:
            return {}, None
        found = await asyncio.gather(*(self._reason(pod) for pod in loading[:PODS_ASKED]))
        reasons = {
            pod["metadata"]["uid"]: reason for pod, reason in zip(loading, found, strict=False)
        }
        known = {uid: reason for uid, reason in reasons.items() if reason}
        return known, LATER_AGAIN_S if len(known) == len(reasons) else FIRST_AGAIN_S

    async def close(self) -> None:
        """Close open connections."""
        if self._session is not None:
            await self._session.close()

    async def _reason(self, pod: Object) -> str:
        uid, now = pod["metadata"]["uid"], self._clock()
        read_at, reason = self._answers.get(uid, (None, ""))
        fresh_s = LATER_AGAIN_S if reason else FIRST_AGAIN_S
        if read_at is not None and now - read_at < fresh_s * 0.9:
            return reason
        try:
            with self._tracer.ask("ask Triton why", pod["metadata"]["name"]):
                reason = why_not_loaded(await self._ask(pod))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("no repository index", pod=pod["metadata"]["name"], problem=repr(error))
            reason = ""
        self._answers[uid] = (now, reason)
        while len(self._answers) > MAX_REMEMBERED:
            self._answers.popitem(last=False)
        return reason

    async def _ask(self, pod: Object) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        address = pod["status"]["podIP"]
        host = f"[{address}]" if ":" in address else address
        containers = pod["spec"].get("initContainers") or ()
        headers = {}
        if any(c["name"] == ENVOY for c in containers):
            port = INTERNAL_PORT
        else:
            port = TRITON_HTTP_PORT
            key = restricted_key(pod["metadata"]["labels"][REVISION_LABEL])
            headers = {RESTRICTED_HTTP_HEADER: key}
        url = f"http://{host}:{port}{REPOSITORY_INDEX_PATH}"
        async with self._session.post(url, headers=headers, allow_redirects=False) as response:
            response.raise_for_status()
            body = await response.content.read(MAX_ANSWER_BYTES)
            while chunk := await response.content.read(MAX_ANSWER_BYTES):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError("the answer is too long")
        return json.loads(body)


def why_not_loaded(index: Any) -> str:
    """Triton's reasons from a repository index; empty while it still loads or all is well."""
    if not isinstance(index, list):
        raise ValueError("a repository index is a list")
    return "; ".join(
        f"{model.get('name')} version {model.get('version') or '?'}: {model.get('reason')}"
        for model in index
        if isinstance(model, dict)
        and model.get("state") == "UNAVAILABLE"
        and model.get("reason") not in (None, "", "unloaded")
    )
