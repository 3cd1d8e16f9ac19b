"""What people are told: conditions of the world around a rollout, and events. Pure."""

from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError

from tidegate import conditions, source
from tidegate import status as status_document
from tidegate.actions import Action, Event, Plan, WriteStatus
from tidegate.diagnosis import Finding, Severity, is_ready
from tidegate.observed import Object
from tidegate.record import Record
from tidegate.resources.look import KIND as LOOK_KIND
from tidegate.resources.route import GRPC_KIND
from tidegate.resources.route import KIND as ROUTE_KIND
from tidegate.revision import Revision
from tidegate.situation import Scene, conditions_of
from tidegate.status import Verdict


def world_failure(scene: Scene) -> Finding | None:
    """What the cluster does not let us do."""
    if scene.observed.foreign:
        names = ", ".join(f"{r.kind} {r.name}" for r in sorted(scene.observed.foreign))
        return Finding(
            Severity.FAILING,
            "Failed",
            "NameConflict",
            f"{names}: exists and is not controlled by this ModelDeployment, so it is not "
            "touched. Delete or rename it, or choose another name.",
        )
    gateway = scene.spec.traffic.gateway
    missing = [k for k in (ROUTE_KIND, GRPC_KIND) if k not in scene.observed.present_kinds]
    if gateway is not None and (
        ROUTE_KIND in missing or (GRPC_KIND in missing and gateway.grpc_hostnames)
    ):
        return Finding(
            Severity.FAILING,
            "Failed",
            "GatewayAPIMissing",
            f"traffic.gateway: this cluster does not serve Gateway API's {missing[0]}. Install "
            "its CRDs, or leave traffic.gateway out.",
        )
    if scene.observed.failures:
        first = scene.observed.failures[0]
        what = "" if first.ref is None else f" {first.ref.kind} {first.ref.name}"
        return Finding(
            Severity.FAILING,
            "Failed",
            first.reason,
            f"{first.action}{what} was refused: {first.message}",
        )
    return None


def outdated(scene: Scene, revision: Revision) -> Verdict:
    """Whether a revision born today would get other images."""
    images = scene.platform.images
    pod = revision.manifest("Deployment")["spec"]["template"]["spec"]
    used = {c["name"]: c["image"] for c in (*pod["initContainers"], *pod["containers"])}
    profile = scene.platform.profile(scene.spec.runtime.profile)
    triton = scene.spec.runtime.image or (profile and profile.image) or images.triton
    today = {"fetch": images.fetch, "envoy": images.envoy, "triton": triton}
    old = [f"{n}: {used[n]}, now {i}" for n, i in today.items() if used.get(n, i) != i]
    if not old:
        return Verdict("RuntimeOutdated", "False", "Current")
    return Verdict(
        "RuntimeOutdated",
        "True",
        "NewerDefaults",
        f"{'; '.join(old)}. The verb `restart` makes a new revision with them.",
    )


def answers(scene: Scene, serves: Revision | None) -> Iterable[Verdict]:
    """How golden requests were answered; nothing where there are none."""
    if serves is None or not scene.golden_requests(serves):
        return
    pods = [p for p in scene.pods(serves) if is_ready(p)]
    results = [scene.measurements.golden.get(p["metadata"]["uid"]) for p in pods]
    problem = scene.golden_problem(serves)
    before = conditions_of(scene.observed.deployment).get("AnswersRight") or {}
    wrong = any(r is not None and not r.passed for r in results)
    if before.get("status") in ("True", "False") and None in results and not wrong and not problem:
        # Answers are kept in memory: what was found before a restart holds until all are in again.
        yield Verdict("AnswersRight", before["status"], before["reason"], before["message"])
        return
    yield conditions.answers(results, problem)


def followed(scene: Scene, record: Record) -> Iterable[Verdict]:
    """Whether the source is followed; nothing where nobody asks for it."""
    if not source.follows(scene.spec):
        return
    kind, target = "SourceFollowed", scene.target
    version = source.seen(record, scene.spec).version
    if LOOK_KIND not in scene.observed.present_kinds:
        text = (
            "the operator may not make CronJobs (batch/v1) here, so nothing looks at the "
            "source. Give it that right, as the chart's role does."
        )
        yield Verdict(kind, "False", "LooksNotAllowed", text)
    elif scene.look.reason:
        yield Verdict(kind, "Unknown", scene.look.reason, scene.look.message)
    elif not target.digest or target.source_version == version:
        text = f"revision {target.hash} is the one for what the source holds"
        yield Verdict(kind, "True", "Followed", text)
    elif not source.comparable(target.source_version, version):
        text = (
            f"nobody knows which version of the source revision {target.hash} was made of: "
            "an older fetch image made it. The verb `restart` makes one of which it is known."
        )
        yield Verdict(kind, "Unknown", "NotComparable", text)
    elif record.target == target.hash:
        text = (
            f"revision {target.hash} was asked for by a verb, the source holds something else; "
            "its next change is followed"
        )
        yield Verdict(kind, "False", "HeldByVerb", text)
    else:
        text = f"revision {target.hash} was fetched after the last look at the source"
        yield Verdict(kind, "True", "Followed", text)


def scaling_told(scene: Scene) -> Iterable[Action]:
    """An event where the load changes the number; what people set they know themselves."""
    fleet = scene.scale.fleet
    if fleet is None or scene.scale.decision is None or fleet.desired == scene.scale.desired:
        return
    if fleet.desired:  # the first pods are no change
        text = f"{fleet.desired} -> {scene.scale.desired} replicas: {scene.scale.reason}"
        yield Event("Normal", "Scaled", text)


def events(
    scene: Scene, told: Iterable[tuple[str, str, str]], verdicts: Iterable[Verdict]
) -> Iterable[Action]:
    """What was decided, as (type, reason, message), and what became of conditions."""
    for type_, reason, message in told:
        yield Event("Warning" if type_ == "Warning" else "Normal", reason, message)
    before = conditions_of(scene.observed.deployment)
    for verdict in verdicts:
        old = before.get(verdict.type) or {}
        if verdict.type == "Ready" and verdict.status == "True" and old.get("status") != "True":
            yield Event("Normal", "Ready", verdict.message)
        if (
            verdict.type == "Stalled"
            and verdict.status == "True"
            and verdict.reason != "RolledBack"  # told with the decision
            and (old.get("status"), old.get("reason")) != ("True", verdict.reason)
        ):
            yield Event("Warning", verdict.reason, verdict.message)
        if (
            verdict.type == "WaitingForGPU"
            and verdict.status == "True"
            and (old.get("status") != "True")
        ):
            yield Event("Warning", verdict.reason, verdict.message)


def nothing_but_status(deployment: Object, reason: str, message: str, now: datetime) -> Plan:
    """Nothing is touched; status says what to mend."""
    serves = conditions_of(deployment).get("Available") or {}
    verdicts = [
        Verdict(
            "Available",
            serves.get("status") or "False",
            serves.get("reason") or reason,
            serves.get("message") or message,
        ),
        Verdict("Ready", "False", reason, message),
        Verdict("Reconciling", "False", reason),
        Verdict("Stalled", "True", reason, message),
    ]
    actions: list[Action] = []
    old = conditions_of(deployment).get("Stalled") or {}
    if (old.get("status"), old.get("reason")) != ("True", reason):
        actions.append(Event("Warning", reason, message))
    actions.append(WriteStatus(status_document.invalid(deployment, verdicts, now)))
    return Plan(tuple(actions))


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong with a spec, and the mend."""
    first = error.errors(include_url=False)[0]
    where = ".".join(["spec", *map(str, first["loc"])])
    return f"{where}: {first['msg']} (it is {first.get('input')!r:.200}). Correct the field."
