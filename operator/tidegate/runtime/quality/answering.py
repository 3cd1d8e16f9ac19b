"""Answers gates: what was counted becomes conditions of ModelDeployments.

It owns, by server-side apply, the conditions Accurate and Steady and ``status.quality``, and
nothing else. The operator reads the conditions as it reads those of any other party.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from tidegate.api import names, units
from tidegate.quality.policy import Policy, PolicyError, policy_of
from tidegate.quality.report import ACCURATE, STEADY, Report, Verdict, report, useless
from tidegate.runtime.kinds import MODEL_DEPLOYMENT, Kind
from tidegate.runtime.kube import KubeError, NotFoundError, Written
from tidegate.runtime.quality.server import Known, Worker
from tidegate.runtime.quality.store import FullError
from tidegate.view import facts

log: Final = structlog.get_logger(__name__)

MANAGER: Final = "tidegate-quality"
BETWEEN_WRITES_S: Final = 10.0
AT_REST_S: Final = 600.0
"""Numbers alone are written no more often while a canary is on trial, and at rest; a changed answer
is written at once."""
TIDY_EVERY_S: Final = 600.0
"""What is not needed any more goes after so long, or as soon as it may not be kept any longer."""
MAX_MESSAGE: Final = 2048

Document = dict[str, Any]


class Api(Protocol):
    """The part of `tidegate.runtime.kube.Kube` that is needed."""

    async def apply(
        self, kind: Kind, document: Document, *, manager: str, force: bool, sub: str | None = None
    ) -> Written:
        """Server-side apply."""


class Answering:
    """Looks at ModelDeployments, and answers their gates.

    Args:
        api: writes.
        worker: what is kept.
        known: what is asked, by namespace and name; filled here, read by the intake.
        now: wall clock, UTC.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        api: Api,
        worker: Worker,
        known: dict[str, Known],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._worker = worker
        self._known = known
        self._now = now
        self._clock = clock
        self._written_at: dict[str, float] = {}
        self._tidied_at: dict[str, float] = {}
        """By model; of all that are gone under an empty name."""
        self._uids: dict[str, str] = {}
        self._reports: dict[str, tuple[object, Report]] = {}
        """With what they were made from."""
        self._open: dict[str, tuple[Document, Document]] = {}
        """ModelDeployments of which a gate is answered True, with the status written."""

    async def look(self, deployments: Iterable[Document]) -> None:
        """Answer the gates of all ModelDeployments, as they are now; those that are gone go."""
        there = {f"{d['metadata']['namespace']}/{d['metadata']['name']}": d for d in deployments}
        policies: dict[str, Policy | PolicyError] = {}
        for model, deployment in there.items():
            try:
                policy = policy_of(deployment)
            except PolicyError as error:
                policies[model] = error
            else:
                if policy is not None:
                    policies[model] = policy
        for model in set(self._known) - set(policies):
            del self._known[model]
            self._open.pop(model, None)
            self._reports.pop(model, None)
            self._uids.pop(model, None)
            self._tidied_at.pop(model, None)
        for model in set(self._written_at) - set(there):
            del self._written_at[model]
        for model, found in policies.items():
            try:
                await self._meet(model, str(there[model]["metadata"]["uid"]))
            except FullError as error:
                log.error("nothing is taken in", modeldeployment=model, error=str(error))
                continue
            self._known[model] = Known(
                policy=found if isinstance(found, Policy) else None,
                revisions=frozenset(facts.known_revisions(there[model])),
            )
        await self._tidy(policies)
        for model, deployment in there.items():
            try:
                await self._answer(model, deployment, policies.get(model))
            except NotFoundError:
                pass  # deleted meanwhile
            except KubeError as error:
                log.warning("status not written", modeldeployment=model, error=str(error))

    async def _meet(self, model: str, uid: str) -> None:
        """See to it that nothing is known of it from one of the same name that was before it."""
        if self._uids.get(model) == uid:
            return
        # Until that is done nothing is taken in: it would be forgotten, too.
        self._known.pop(model, None)
        if await self._worker.change(model, lambda store: store.meet(model, uid)):
            log.info("forgotten", modeldeployment=model, reason="deleted and made again")
        self._uids[model] = uid

    async def _report(self, model: str, deployment: Document, policy: Policy) -> Report:
        """The report; the last one where nothing changed that it speaks of."""
        now = self._now()
        roles = (facts.revision(deployment, role).get("hash") for role in ("stable", "canary"))
        trial = (*roles, facts.rolling(deployment))
        basis = (self._worker.versions[model], policy, trial, now.date())
        known = self._reports.get(model)
        if known is not None and known[0] == basis:
            return known[1]
        bins, figures = await self._worker.do(lambda store: store.figures(model))
        # Beside the event loop: many fields take a while.
        found = await asyncio.to_thread(report, deployment, policy, bins, figures, now)
        self._reports[model] = basis, found
        return found

    async def withdraw(self) -> None:
        """Take back each True: nobody looks from here on."""
        for model, (deployment, status) in self._open.items():
            now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
            closed = {
                "status": "Unknown",
                "reason": "NotLookedAt",
                "message": "the quality component was stopped",
                "lastTransitionTime": now,
            }
            conditions = [
                c | (closed if c["status"] == "True" else {}) for c in status["conditions"]
            ]
            try:
                await self._write(model, deployment, {**status, "conditions": conditions})
            except KubeError as error:
                log.warning("a gate stays open", modeldeployment=model, error=str(error))
        self._open.clear()

    async def _answer(
        self, model: str, deployment: Document, policy: Policy | PolicyError | None
    ) -> None:
        if policy is None:
            if _owns(deployment):
                await self._write(model, deployment, {})
            return
        if isinstance(policy, PolicyError):
            found = useless(str(policy))
        else:
            found = await self._report(model, deployment, policy)
        wanted = _status(deployment, found, self._now())
        there = _ours(deployment)
        self._open.pop(model, None)
        if any(c["status"] == "True" for c in wanted["conditions"]):
            self._open[model] = deployment, wanted
        if wanted == there:
            return
        age_s = self._clock() - self._written_at.get(model, -AT_REST_S)
        least_s = BETWEEN_WRITES_S if facts.rolling(deployment) else AT_REST_S
        if _answers(wanted) == _answers(there) and age_s < least_s:
            return
        await self._write(model, deployment, wanted)

    async def _write(self, model: str, deployment: Document, status: Document) -> None:
        meta = deployment["metadata"]
        document = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            # Not one of the same name that was made meanwhile.
            "metadata": {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
            "status": status,
        }
        await self._api.apply(MODEL_DEPLOYMENT, document, manager=MANAGER, force=True, sub="status")
        self._written_at[model] = self._clock()
        for condition in status.get("conditions") or ():
            log.info(
                "answered",
                modeldeployment=model,
                condition=condition["type"],
                status=condition["status"],
                reason=condition["reason"],
            )

    async def _tidy(self, policies: Mapping[str, Policy | PolicyError]) -> None:
        """Forget what is not needed, or may not be kept, any more."""
        due = {
            model: found
            for model, found in policies.items()
            if isinstance(found, Policy)
            and model in self._known
            and self._is_due(model, min(TIDY_EVERY_S, units.duration_s(found.keep)))
        }
        gone = set()
        if self._is_due("", TIDY_EVERY_S):
            # Deleted, or nobody asks any more.
            gone = await self._worker.do(lambda store: store.models()) - set(policies)
        if not due and not gone:
            return
        try:
            for model in gone:
                await self._forget(model)
            for model, policy in due.items():
                await self._tidy_one(model, policy)
            await self._worker.do(lambda store: store.scrub())
        except FullError as error:
            log.error("not tidied", error=str(error))

    def _is_due(self, model: str, every_s: float) -> bool:
        clock = self._clock()
        if clock - self._tidied_at.get(model, -TIDY_EVERY_S) < every_s:
            return False
        self._tidied_at[model] = clock
        return True

    async def _forget(self, model: str) -> None:
        await self._worker.change(model, lambda store: store.forget(model))
        log.info("forgotten", modeldeployment=model)

    async def _tidy_one(self, model: str, policy: Policy) -> None:
        at_s, keep_s = self._now().timestamp(), units.duration_s(policy.keep)
        revisions = self._known[model].revisions
        await self._worker.change(model, lambda store: store.leave_out(model, policy.leave_out))
        await self._worker.change(model, lambda store: store.tidy(model, revisions, keep_s, at_s))


def _status(deployment: Document, found: Report, now: datetime) -> Document:
    """The part of status that is ours, as it should be."""
    return {
        "conditions": [_condition(deployment, v, now) for v in found.verdicts],
        "quality": list(found.revisions),
    }


def _condition(deployment: Document, verdict: Verdict, now: datetime) -> Document:
    old = facts.condition(deployment, verdict.type)
    same = (old.get("status"), old.get("revision", "")) == (verdict.status, verdict.revision)
    kept = same and old.get("lastTransitionTime")
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message[:MAX_MESSAGE],
        "lastTransitionTime": kept or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": deployment["metadata"].get("generation") or 0,
        **({"revision": verdict.revision} if verdict.revision else {}),
    }


def _ours(deployment: Document) -> Document:
    status = facts.status(deployment)
    return {
        "conditions": [
            dict(c)
            for kind in (ACCURATE, STEADY)
            for c in status.get("conditions") or ()
            if c.get("type") == kind
        ],
        "quality": [dict(one) for one in status.get("quality") or ()],
    }


def _answers(status: Document) -> set[tuple[str, str, str, str]]:
    return {
        (c["type"], c["status"], c["reason"], c.get("revision", "")) for c in status["conditions"]
    }


def _owns(deployment: Document) -> bool:
    managed = deployment["metadata"].get("managedFields") or ()
    return any(m.get("manager") == MANAGER and m.get("subresource") == "status" for m in managed)
