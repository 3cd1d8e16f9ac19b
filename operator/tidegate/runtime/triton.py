"""What Triton itself says of a model that is not ready.

Triton stays up when a model does not load; the pod is then live and never ready, and only the
repository index tells why. It is asked while a pod's Triton runs and is not ready, and no more,
beside the passes: one that hangs holds up no rollback.
"""

import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import aiohttp
import structlog

from tidegate.api.names import REVISION_LABEL
from tidegate.diagnosis import is_loading
from tidegate.observed import Object
from tidegate.resources.pod import ENVOY, restricted_key
from tidegate.resources.sidecar import REPOSITORY_INDEX_PATH
from tidegate.resources.triton import RESTRICTED_HTTP_HEADER
from tidegate.runtime.background import Background
from tidegate.runtime.cache import Key, uid_of
from tidegate.runtime.golden_client import base_url
from tidegate.runtime.pods import first_of_each_revision

log: Final = structlog.get_logger(__name__)

TIMEOUT_S: Final = 2.0
FIRST_AGAIN_S: Final = 1.0
LATER_AGAIN_S: Final = 10.0
"""Once a reason is known, so often to see whether it is still true."""
AT_ONCE: Final = 64
"""Pods asked at the same time, of all ModelDeployments together; some may hang."""
MAX_ANSWER_BYTES: Final = 1 << 20


class RepositoryIndex:
    """Asks pods for their repository index, no oftener than needed.

    Args:
        wake: told of a ModelDeployment about whose pods Triton says something else than before.
        url: of a pod.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        wake: Callable[[Key], None],
        *,
        url: Callable[[Object], str] = base_url,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._asked = Background("", _pause_s, wake, at_once=AT_ONCE, clock=clock)

    def models(self, key: Key, pods: Iterable[Object]) -> tuple[dict[str, str], float | None]:
        """By pod UID, what Triton says of models that did not load; and when to look again.

        A pod that does not answer is left out: unknown is not a reason.
        """
        loading = first_of_each_revision(pod for pod in pods if is_loading(pod))
        found = self._asked.take(key, {uid_of(pod): partial(self._reason, pod) for pod in loading})
        return {uid: why for uid, why in found.answers.items() if why}, found.again_after_s

    async def stop(self) -> None:
        """Ask nobody any more, and close open connections."""
        await self._asked.stop()
        if self._session is not None:
            await self._session.close()

    async def _reason(self, pod: Object) -> str:
        try:
            return why_not_loaded(await self._ask(pod))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            log.debug("no repository index", pod=pod["metadata"]["name"], problem=repr(error))
            return ""

    async def _ask(self, pod: Object) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        headers = {}
        if not any(c["name"] == ENVOY for c in pod["spec"].get("initContainers") or ()):
            key = restricted_key(pod["metadata"]["labels"][REVISION_LABEL])
            headers = {RESTRICTED_HTTP_HEADER: key}
        url = self._url(pod) + REPOSITORY_INDEX_PATH
        async with self._session.post(url, headers=headers, allow_redirects=False) as response:
            response.raise_for_status()
            body = await response.content.read(MAX_ANSWER_BYTES)
            while chunk := await response.content.read(MAX_ANSWER_BYTES):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError("the answer is too long")
        return json.loads(body)


def _pause_s(reason: str) -> float:
    return LATER_AGAIN_S if reason else FIRST_AGAIN_S


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
