"""The whole way: convert, optimise, prove, tune, publish.

Every step's result is kept in the working folder by a digest of all that it depends on, so a run
that was cut off goes on, and a run with one changed option repeats only what depends on it.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from tidegate.preparation import convert, lineage, metrics, session, timing
from tidegate.preparation import samples as reading
from tidegate.preparation.candidate import Candidate, TensorSpec
from tidegate.preparation.choices import CHOICES
from tidegate.preparation.errors import NoRoomError, PreparationError
from tidegate.preparation.gate import Allowed, Verdict
from tidegate.preparation.order import Order
from tidegate.preparation.publish import golden
from tidegate.preparation.publish.publishing import Prepared, check, publish
from tidegate.preparation.samples import Samples
from tidegate.preparation.state import State, key_of
from tidegate.preparation.tuning.repository import Backend
from tidegate.preparation.tuning.serving import backend_of, command
from tidegate.preparation.tuning.tuner import QUICK, Effort, Job, Result, tuned, with_others
from tidegate.preparation.writing import require_room

ORIGINAL: Final = "fp32"
STAGES: Final = ("convert", "optimise", "prove", "tune", "publish")
SIGNATURES: Final = "signatures"
SHARES: Final = ("accuracy", "f1")
"""Metrics from 0 to 1."""
REQUESTS: Final = 64
"""Samples that are sent as load, in turn."""


class Teller(Protocol):
    """Is told how far it is."""

    def stage(self, name: str) -> None:
        """One of `STAGES` begins."""

    def detail(self, text: str) -> None:
        """What is being done."""

    def share(self, done: float) -> None:
        """How much of the stage is done, 0 to 1, as far as can be said."""


@dataclass
class Tried:
    """A candidate and what became of it.

    Attributes:
        name: of the candidate.
        candidate: None: it could not be made.
        verdict: the gate's word, or why it could not be made.
        accepted: whether it may be served.
        judgement: the gate's figures.
        speed: a first look at how much faster it is.
        result: what tuning came to.
    """

    name: str
    candidate: Candidate | None
    verdict: str
    accepted: bool
    judgement: Mapping[str, Any] = field(default_factory=dict)
    speed: str = ""
    result: Result | None = None

    def document(self, taken: bool) -> dict[str, Any]:
        """As JSON."""
        made, best = self.candidate, self.result.tuned.best if self.result else None
        return {
            "name": self.name,
            "taken": taken,
            "accepted": self.accepted,
            "verdict": self.verdict,
            "judgement": dict(self.judgement),
            "speed": self.speed,
            "platform": made.platform if made else None,
            "bytes": made.size_bytes if made else None,
            "steps": list(made.steps) if made else [],
            "notes": dict(made.notes) if made else {},
            "held": best.document() if best else None,
        }


def prepare(order: Order, tell: Teller) -> dict[str, Any]:
    """Prepare a model.

    Returns:
        The report, as JSON; it was written to the place, too.

    Raises:
        PreparationError: something is wrong; says what, and the way round. What was done so far is
            kept in the working folder, and nothing was published.
    """
    check(order.place)
    if unknown := [name for name in order.optimisations if name not in CHOICES]:
        raise PreparationError(
            f"there is no optimisation {unknown[0]}: there are {', '.join(CHOICES)}"
        )
    _check(order)
    triton = command(order.triton)
    data = reading.read(order.data)
    calibration, held_out = _samples(order, data)
    state = State(order.work)
    code = lineage.code()

    tell.stage("convert")
    original = _convert(order, data, state, code)
    # Now rather than after all the work: a metric that raises, labels that are missing.
    judgement = _judged(order, original, original, held_out, Allowed(order.max_drop), state, code)
    tell.stage("optimise")
    verdict = f"the original: {judgement['metric']} {judgement['before']:.4g}"
    tried = [Tried(ORIGINAL, original, verdict, accepted=True, judgement=judgement)]
    tried += _optimise(order, original, calibration, state, code, tell)
    tell.stage("prove")
    _prove(order, original, tried, held_out, state, code, tell)
    tell.stage("tune")
    best, job = _tune(order, tried, data, triton, state, code, tell)
    tell.stage("publish")
    prepared = _prepared(order, tried, best, job, data, held_out)
    return publish(prepared, order.place, order.work / SIGNATURES, tell.detail)


def _check(order: Order) -> None:
    """What the options alone say."""
    metrics.direction(order.metric, order.better)
    if order.source is not None and not order.source.exists():
        raise PreparationError(f"{order.source} does not exist")
    if order.metric in SHARES and order.max_drop >= 1.0:
        raise PreparationError(
            f"a drop of {100 * order.max_drop:g} % of {order.metric} would allow anything: write "
            f"{order.max_drop:g}%, or {order.max_drop / 100:g}"
        )


def _samples(order: Order, data: Samples) -> tuple[Samples, Samples]:
    """To calibrate on, and to judge on: never the same."""
    if order.calibration is not None:
        return reading.read(order.calibration), data
    if any(CHOICES[name].calibrated for name in order.optimisations):
        return data.split(0.8)
    return data.take(slice(0, 1)), data


def _convert(order: Order, data: Samples, state: State, code: str) -> Candidate:
    known = list(convert.Framework)
    if order.framework and order.framework not in known:
        raise PreparationError(f"{order.framework} is no framework: there are {', '.join(known)}")
    framework = convert.Framework(order.framework) if order.framework else None
    if not order.model.exists():
        raise PreparationError(f"{order.model} does not exist")
    parts = {
        "model": lineage.digest(order.model),
        "data": data.digest(),
        "framework": order.framework,
        "code": code,
    }
    out = _place(order, ORIGINAL, parts)
    return _known(
        state,
        "convert",
        parts,
        lambda: convert.convert(order.model, data, out, framework=framework, name=ORIGINAL),
    )


def _optimise(
    order: Order,
    original: Candidate,
    calibration: Samples,
    state: State,
    code: str,
    tell: Teller,
) -> list[Tried]:
    found = []
    for number, name in enumerate(order.optimisations):
        tell.share(number / len(order.optimisations))
        make = CHOICES[name].make
        tell.detail(name)
        parts = {
            "candidate": lineage.of_candidate(original),
            "calibration": calibration.digest(),
            "name": name,
            "code": code,
        }
        out = _place(order, name, parts)
        # Before and after: what fails for want of room is no fault of the model's.
        room = partial(require_room, original.size_bytes, order.work, Path(tempfile.gettempdir()))
        room()
        try:
            made = _known(state, "optimise", parts, partial(make, original, out, calibration))
        except NoRoomError:
            raise
        except PreparationError as error:
            room()
            found.append(Tried(name, None, f"not made: {error}", accepted=False))
        else:
            found.append(Tried(name, made, "", accepted=False))
    return found


def _prove(
    order: Order,
    original: Candidate,
    tried: list[Tried],
    held_out: Samples,
    state: State,
    code: str,
    tell: Teller,
) -> None:
    made = [one for one in tried[1:] if one.candidate is not None]
    allowed = Allowed(order.max_drop, order.confidence, max(1, len(made)))
    for number, one in enumerate(made):
        tell.share(number / len(made))
        candidate = one.candidate
        assert candidate is not None
        tell.detail(one.name)
        judgement = _judged(order, original, candidate, held_out, allowed, state, code)
        one.judgement = judgement
        one.verdict = judgement["sentence"]
        one.accepted = judgement["verdict"] == Verdict.ACCEPTED.value
        parts = {
            "before": lineage.of_candidate(original),
            "after": lineage.of_candidate(candidate),
            "machine": lineage.machine(),
        }
        one.speed = state.recall("speed", parts, partial(_speed, original, candidate, held_out))


def _judged(
    order: Order,
    original: Candidate,
    candidate: Candidate,
    held_out: Samples,
    allowed: Allowed,
    state: State,
    code: str,
) -> dict[str, Any]:
    """The gate's judgement as JSON, with its sentence."""
    parts = {
        "before": lineage.of_candidate(original),
        "after": lineage.of_candidate(candidate),
        "data": held_out.digest(),
        "metric": lineage.metric(order.metric),
        "better": metrics.direction(order.metric, order.better).value,
        "allowed": asdict(allowed),
        "code": code,
    }

    def judge() -> dict[str, Any]:
        found = metrics.judge(
            original, candidate, held_out, allowed, metric=order.metric, better=order.better
        )
        return {**asdict(found), "sentence": found.sentence()}

    judged: dict[str, Any] = state.recall("prove", parts, judge)
    return judged


def _speed(original: Candidate, candidate: Candidate, held_out: Samples) -> str:
    return timing.compare(original, candidate, held_out).sentence()


def _tune(
    order: Order,
    tried: list[Tried],
    data: Samples,
    triton: str,
    state: State,
    code: str,
    tell: Teller,
) -> tuple[Tried, Job]:
    """Tune all that may be served; the one that meets the objective at the least cost."""
    jobs: dict[str, Job] = {}
    facts: dict[str, Any] = {"machine": lineage.machine(), "code": code, "data": data.digest()}
    served = [one for one in tried if one.accepted and one.candidate is not None]
    done = _Share(tell, len(served))
    for one in served:
        assert one.candidate is not None
        jobs[one.name] = _job(order, one.candidate, data, triton, state, facts)
        one.result = tuned(jobs[one.name], state, done.of(one.name, jobs[one.name].most_told()))
    fitting = [t for t in tried if t.result is not None and t.result.tuned.best is not None]
    if not fitting:
        raise PreparationError(_why_none(order, tried))
    best = min(fitting, key=lambda t: t.result.tuned.best.cost_s)  # type: ignore[union-attr]
    assert best.result is not None
    job = jobs[best.name]
    best.result = with_others(job, best.result, state, done.of(best.name, 0))
    return best, job


class _Share:
    """Tells how much of the tuning is done: a part for each candidate, a bit for each measurement.

    Args:
        tell: is told.
        candidates: how many are tuned.
    """

    def __init__(self, tell: Teller, candidates: int) -> None:
        self._tell = tell
        self._part = 1.0 / candidates
        self._begun = 0

    def of(self, name: str, most: int) -> Callable[[str], None]:
        """What one candidate's tuning tells.

        Args:
            name: of the candidate.
            most: times that it will be told at most; 0: it does not count.
        """
        before, told = self._begun * self._part, 0
        self._begun += 1

        def detail(text: str) -> None:
            nonlocal told
            self._tell.detail(f"{name}: {text}")
            if most:
                self._tell.share(min(1.0, before + self._part * min(1.0, told / most)))
            told += 1

        return detail


def _job(
    order: Order,
    candidate: Candidate,
    data: Samples,
    triton: str,
    state: State,
    facts: Mapping[str, Any],
) -> Job:
    digest = lineage.of_candidate(candidate)
    # All candidates of one platform are run by the same backend.
    parts = {"triton": triton, "platform": candidate.platform, **facts}
    backend = state.recall(
        "backend", parts, lambda: backend_of(candidate, order.name, triton).value
    )
    columns = session.fitted(candidate.inputs, data)
    documents = golden.documents(columns, candidate.inputs, REQUESTS)
    return Job(
        candidate=candidate,
        digest=digest,
        model=order.name,
        backend=Backend(backend),
        triton=triton,
        objective=order.objective,
        requests=golden.requests(documents, [o.name for o in candidate.outputs]),
        cores=lineage.cores(),
        effort=QUICK if order.quick else Effort(),
        facts=facts,
    )


def _why_none(order: Order, tried: list[Tried]) -> str:
    seen = [
        (stretch.p50_ms, held.setting)
        for one in tried
        if one.result is not None
        for held in one.result.tuned.held
        for stretch in held.stretches
        if stretch.p50_ms is not None
    ]
    if not seen:
        return f"no candidate meets {order.objective}: none answered in time at any rate"
    least_ms, setting = min(seen, key=lambda found: found[0])
    return (
        f"no candidate meets {order.objective} on this machine: the lowest median latency was "
        f"{least_ms:.1f} ms, with {setting}; loosen the objective, or make the model smaller"
    )


def _prepared(
    order: Order,
    tried: list[Tried],
    best: Tried,
    job: Job,
    data: Samples,
    held_out: Samples,
) -> Prepared:
    assert best.result is not None
    columns = session.fitted(job.candidate.inputs, data)
    return Prepared(
        name=order.name,
        job=job,
        result=best.result,
        samples=columns,
        candidates=[one.document(one is best) for one in tried],
        others=[h for one in tried if one.result for h in one.result.tuned.held],
        order=order.document(),
        lineage={
            "model": lineage.digest(order.model),
            "framework": order.framework or str(convert.framework_of(order.model)),
            "data": data.digest(),
            "held out": f"{len(held_out)} samples, {held_out.digest()}",
            "calibration": lineage.digest(order.calibration) if order.calibration else None,
            "metric": lineage.metric(order.metric),
            "preparation code": lineage.code(),
            "training code": lineage.digest(order.source) if order.source else None,
            "licence": order.licence or None,
            "versions": lineage.versions(),
            "machine": lineage.machine(),
        },
    )


def _place(order: Order, name: str, parts: Mapping[str, Any]) -> Path:
    """A file of its own for each set of inputs: another run's stays as it is."""
    return order.work / f"{name}-{key_of(parts)[:12]}" / "model.onnx"


def _known(state: State, what: str, parts: Mapping[str, Any], make: Any) -> Candidate:
    """A candidate that is still there as it was, or made now."""

    def made() -> dict[str, Any]:
        candidate: Candidate = make()
        return {
            **asdict(candidate),
            "path": str(candidate.path),
            "notes": dict(candidate.notes),
            "digest": lineage.of_candidate(candidate),
        }

    def still(found: Any) -> bool:
        candidate = _candidate(found)
        return candidate.path.exists() and lineage.of_candidate(candidate) == found["digest"]

    return _candidate(state.recall(what, parts, made, still=still))


def _candidate(found: Mapping[str, Any]) -> Candidate:
    return Candidate(
        name=found["name"],
        path=Path(found["path"]),
        platform=found["platform"],
        inputs=tuple(_tensor(t) for t in found["inputs"]),
        outputs=tuple(_tensor(t) for t in found["outputs"]),
        size_bytes=found["size_bytes"],
        steps=tuple(found["steps"]),
        notes=found["notes"],
    )


def _tensor(found: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(found["name"], found["datatype"], tuple(found["shape"]))
