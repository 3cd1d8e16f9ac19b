"""Asking a verb of a rollout: the annotation, and what became of it."""

import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from tidegate.api import names
from tidegate.cli import waiting
from tidegate.cli.client import MERGE, ApiError, Client, deployment_path, events_path
from tidegate.cli.trouble import Exit, Misuse, Trouble
from tidegate.verbs import Request, Verb, parse
from tidegate.view import facts
from tidegate.view.facts import Document
from tidegate.view.reasons import NOBODY_LOOKS

ON_TRIAL: Final = (Verb.ABORT, Verb.PROMOTE, Verb.SKIP_STEP)
"""Verbs that mean the canary on trial: it is named, so that a later one is not hit."""

_DENIED: Final = re.compile(r"denied request: (?:metadata\.annotations\[[^]]*\]: )?(.*)", re.S)


def meant(document: Document, verb: Verb, revision: str) -> str:
    """The hash of the revision that a verb is about; '' leaves it to the operator.

    Args:
        document: the ModelDeployment.
        verb: what is asked.
        revision: as the user wrote it: a hash, or how it begins; '' for none.

    Raises:
        Trouble: there is nothing to do this to.
    """
    name = document["metadata"]["name"]
    if verb in ON_TRIAL:
        if trouble := _in_vain(document, verb):
            raise trouble
        return facts.revision(document, "canary").get("hash") or ""
    if verb is Verb.RETRY:
        failed = [str(f.get("hash")) for f in facts.failed(document)]
        if not failed:
            raise Trouble(
                f"no revision of {name} has failed: nothing to retry",
                f"a new one of the same spec: tidegate restart {name}",
            )
        return _one(name, failed, revision, "failed revision") if revision else failed[0]
    if verb is Verb.UNDO and revision:
        return known(document, revision)
    return ""


def _in_vain(document: Document, verb: Verb) -> Trouble | None:
    """Why a verb about the canary makes no sense now, and what would; None where it does."""
    name, phase = document["metadata"]["name"], facts.rollout(document).get("phase")
    canary = facts.revision(document, "canary").get("hash")
    if not facts.rolling(document):
        if phase != "RolledBack":
            back = f"back to an earlier revision: tidegate undo {name}"
            mend = back if verb is Verb.ABORT else "a changed spec starts one"
        elif verb is Verb.ABORT:
            mend = f"it has been taken back already: tidegate explain {name}"
        else:
            mend = f"try the failed revision again: tidegate retry {name}"
        why = f"no rollout of {name} is under way ({phase or 'no rollout yet'})"
        return Trouble(f"{why}: nothing to {verb.value}", mend)
    if not facts.revision(document, "stable").get("hash"):
        mend = f"if it does not become ready: tidegate explain {name}"
        if verb is Verb.ABORT:
            return Trouble(f"{canary} is {name}'s first revision: nothing to go back to", mend)
        return Trouble(f"{canary} is {name}'s first revision: it goes live when it is ready", mend)
    if verb is Verb.PROMOTE and phase == "Baking":
        return Trouble(
            f"{canary} has all of {name}'s traffic already, and bakes",
            f"until that is over: tidegate wait {name}; to take it back: tidegate abort {name}",
        )
    return None


def known(document: Document, start: str) -> str:
    """The hash of the one revision that begins so.

    Raises:
        Trouble: there is none, or several.
    """
    name = document["metadata"]["name"]
    return _one(name, facts.known_revisions(document), start, "revision")


def _one(name: str, known: list[str], start: str, what: str) -> str:
    found = facts.matching(known, start)
    if len(found) == 1:
        return found[0]
    if found:
        raise Misuse(f"{start} may be {' or '.join(found)}", "write more of it")
    raise Trouble(
        f"{name} has no {what} {start}",
        f"it knows {', '.join(known) or 'none'}; see tidegate history {name}",
        code=Exit.NOT_FOUND,
    )


def refuse_vain(document: Document, verb: Verb) -> None:
    """Say where a verb could change nothing.

    Raises:
        Trouble: the manifest itself pauses the rollout.
    """
    paused = ((document.get("spec") or {}).get("rollout") or {}).get("paused")
    if verb is Verb.RESUME and paused:
        raise Trouble(
            "the manifest itself holds the rollout (spec.rollout.paused)",
            "set it to false there and apply",
        )


def ask(
    client: Client, namespace: str, name: str, verb: Verb, revision: str
) -> tuple[Request, datetime | None]:
    """Write the request; it, and when that was by the API server's clock (None: unknown).

    Raises:
        Trouble: it is refused, or no answer came.
    """
    request = Request(secrets.token_hex(6), verb, revision, client.user())
    body = {"metadata": {"annotations": {names.REQUEST_ANNOTATION: str(request)}}}
    try:
        document = client.request(
            "PATCH", deployment_path(namespace, name), body=body, content_type=MERGE
        )
    except ApiError as error:
        raise _refused(error, request, namespace, name) from None
    times = [facts.moment(f.get("time")) for f in document["metadata"].get("managedFields") or ()]
    return request, max((t for t in times if t), default=None)


def _refused(error: ApiError, request: Request, namespace: str, name: str) -> Trouble:
    """The API server's refusal in one line, with what to do."""
    if found := _DENIED.search(error.message):
        return Trouble(f"refused: {found[1]}")
    if error.status == 403:
        return Trouble(
            f"refused: {request.user} may not change {names.PLURAL}.{names.GROUP} in {namespace}",
            f"ask for the role edit there (the verb patch), and for the verb {request.verb.value}",
        )
    return Trouble(f"{request.verb.value} {name}: {error.message}", error.mend, code=error.code)


REFUSED: Final = "RequestRefused"
"""Reason of the event by which the operator says that it does not do what is asked."""
CLOCKS_S: Final = 5.0
"""By so much the operator's clock may be behind the API server's."""


def refusal(events: Iterable[Document], request: Request, asked: datetime | None) -> str:
    """Why the operator did not do what was asked, by its events; '' where it says nothing.

    Args:
        events: about the ModelDeployment.
        request: what was asked.
        asked: when, by the API server's clock; None: unknown.
    """
    for event in events:
        message = str(event.get("message") or "")
        at = facts.moment(event.get("eventTime") or event.get("lastTimestamp"))
        late = asked and at and (asked - at).total_seconds() > CLOCKS_S
        by = f"{request.verb.value} by {request.user}"
        if event.get("reason") == REFUSED and message.startswith(f"{by}: ") and not late:
            return message.removeprefix(f"{by}: ")
    return ""


def evident(document: Document, verb: Verb) -> bool:
    """Whether it can be seen that a handled request was granted."""
    phase = facts.rollout(document).get("phase")
    match verb:
        case Verb.ABORT:
            return phase == "RolledBack"
        case Verb.PROMOTE:
            return phase in ("Baking", "Promoted")
        case Verb.RETRY:
            return phase in facts.ROLLING
        case Verb.PAUSE | Verb.RESUME | Verb.RESTART:
            return True  # never refused
    return False


def refused(
    client: Client,
    document: Document,
    request: Request,
    asked: datetime | None,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """The same, read from the API server; '' too where events may not be read.

    An event comes a moment after the status, or before it.
    """
    if evident(document, request.verb):
        return ""
    meta = document["metadata"]
    for wait_s in (0.0, 0.3, 0.7):
        sleep(wait_s)
        try:
            events = client.list(
                events_path(meta["namespace"]),
                fields={"involvedObject.uid": meta["uid"], "reason": REFUSED},
            )
        except Trouble:
            return ""
        if found := refusal(events, request, asked):
            return found
    return ""


def judge(request: Request) -> Callable[[Document], tuple[Exit | None, str]]:
    """For `waiting.wait`: over once the operator has handled this request."""

    def found(document: Document) -> tuple[Exit | None, str]:
        name = document["metadata"]["name"]
        if facts.status(document).get("lastRequest") == request.id:
            return Exit.REACHED, became(document, request.verb)
        annotations = document["metadata"].get("annotations") or {}
        there = parse(annotations.get(names.REQUEST_ANNOTATION))
        if there is None or there.id != request.id:
            by = f"{there.verb.value} by {there.user}" if there else "somebody removed it"
            return Exit.ERROR, f"{request.verb.value} {name}: overtaken before it was seen: {by}"
        return None, "asked; waiting for the operator"

    return found


def became(document: Document, verb: Verb) -> str:
    """What a handled request led to, in a line."""
    name = document["metadata"]["name"]
    text = f"{name}: {verb.value} handled"
    where = waiting.progress(document)
    message = str(facts.rollout(document).get("message") or "")
    text += f"; {where}" if where else ""
    return text + (f". {message}" if message and message not in where else "")


def too_late(request: Request, timeout_s: float) -> str:
    """What to say where the operator took too long."""
    return (
        f"{request.verb.value}: asked, but not handled within {facts.span(timeout_s)}; it stays "
        f"asked; {NOBODY_LOOKS}"
    )
