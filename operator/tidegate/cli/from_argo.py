"""From the strategy of an Argo Rollout to `rollout` and `slo`. Pure."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from tidegate.cli.draft import OWN, Document, Draft, block, items

_CONDITION: Final = re.compile(r"\s*result(?:\[0\])?\s*(>=|>|<=|<)\s*([0-9]*\.?[0-9]+)\s*")
_CANARY_READ: Final = frozenset(
    {
        *("steps", "analysis", "trafficRouting", "canaryService", "stableService", "maxSurge"),
        *("maxUnavailable", "abortScaleDownDelaySeconds", "scaleDownDelaySeconds"),
        *("dynamicStableScale", "canaryMetadata", "stableMetadata", "minPodsPerReplicaSet"),
    }
)
_GATE: Final = "rollout.gates: [Approved] holds promotion until somebody sets that condition"


def fill(draft: Draft, spec: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> None:
    """Sets `rollout`, and `slo.maxErrorRate` where an analysis says it.

    Args:
        draft: to fill.
        spec: the Rollout's.
        others: what else was read: AnalysisTemplates among it.
    """
    strategy = block(dict(spec), "strategy")
    templates = {
        block(dict(o), "metadata").get("name"): block(dict(o), "spec")
        for o in others
        if o.get("kind") in ("AnalysisTemplate", "ClusterAnalysisTemplate")
    }
    if canary := block(strategy, "canary"):
        _canary(draft, canary, templates)
    elif green := block(strategy, "blueGreen"):
        _blue_green(draft, green, templates)
    _time(draft, "rollout.progressDeadline", spec, "progressDeadlineSeconds")
    if spec.get("analysis"):
        draft.note("analysis", "how many runs are kept: evidence is in status", "nothing to do")


def addresses(spec: Mapping[str, Any]) -> set[str]:
    """Names of the Services and routes that a Rollout's strategy uses."""
    strategy = block(dict(spec), "strategy")
    found = {
        str(block(strategy, kind).get(key))
        for kind in ("canary", "blueGreen")
        for key in ("canaryService", "stableService", "activeService", "previewService")
    }
    plugins = block(block(block(strategy, "canary"), "trafficRouting"), "plugins")
    return found | {str(block(plugins, name).get("httpRoute")) for name in plugins}


def duration(value: object) -> str:
    """Argo's seconds, or its duration such as 10m, as Tidegate writes it; '' for none of them."""
    text = str(value)
    if re.fullmatch(r"[0-9]+", text):
        number = int(text)
        if number >= 60 and number % 60 == 0:
            return f"{number // 60}m"
        return f"{number}s"
    return text if re.fullmatch(r"([0-9]{1,5}(h|m|s|ms)){1,4}", text) else ""


def _time(draft: Draft, path: str, node: Mapping[str, Any], key: str) -> None:
    if length := duration(draft.whole(key, node.get(key)) or ""):
        draft.put(path, length)


def _canary(draft: Draft, canary: Document, templates: Mapping[Any, Document]) -> None:
    _steps(draft, items(canary, "steps"), templates)
    if background := block(canary, "analysis"):
        _analysis(draft, "analysis", background, templates)
    if str(canary.get("maxSurge", "")) in ("0", "0%"):
        draft.put("rollout.surge", "Never")
    _time(draft, "rollout.keepFailed", canary, "abortScaleDownDelaySeconds")
    _time(draft, "rollout.bake", canary, "scaleDownDelaySeconds")
    services = [k for k in ("canaryService", "stableService") if canary.get(k)]
    if services:
        draft.note(", ".join(f"{k} {canary[k]}" for k in services), "not carried over", OWN)
    if routing := block(canary, "trafficRouting"):
        kinds = [k for k in routing if k not in ("managedRoutes", "maxTrafficWeight")]
        names = [*block(routing, "plugins")] if "plugins" in kinds else kinds
        draft.note(
            f"trafficRouting {', '.join(names)}",
            "Tidegate writes an HTTPRoute of its own",
            "after the cut-over name the gateway in traffic.gateway; until then steps are not read",
        )
    elif items(canary, "steps"):
        draft.note(
            "steps",
            "weights were kept by numbers of pods",
            "Tidegate needs traffic.gateway to split; without it all traffic moves at once",
        )
    for key in sorted(set(canary) - _CANARY_READ):
        draft.note(f"strategy.canary.{key}", "there is no field for it", "do without it")


def _steps(draft: Draft, steps: list[Document], templates: Mapping[Any, Document]) -> None:
    found: list[Document] = []
    open_step = False
    for at, step in enumerate(steps):
        where = f"steps[{at}]"
        if "setWeight" in step:
            weight = draft.whole(f"{where} setWeight", step["setWeight"])
            last = Decimal(found[-1]["weight"][:-1]) if found else Decimal(0)
            open_step = False
            if weight in (0, 100):
                continue  # golden requests and mirror come before; promotion follows by itself
            if weight <= last:
                draft.note(
                    f"{where} setWeight {weight}",
                    f"not above the {last} % before it",
                    "weights only rise; a bad version goes back by itself",
                )
                continue
            found.append({"weight": f"{weight}%"})
            open_step = True
        elif "pause" in step:
            length = duration(block(step, "pause").get("duration") or "")
            if length and found and open_step:
                found[-1]["hold"] = length
            elif length:
                draft.note(
                    f"{where} pause {length}",
                    "at no weight between 0 and 100",
                    "rollout.mirror and golden requests come before the first step, bake after",
                )
            else:
                draft.note(f"{where} pause without end", "evidence moves a rollout on", _GATE)
        elif "analysis" in step:
            _analysis(draft, where, block(step, "analysis"), templates)
        elif "setMirrorRoute" in step:
            share = block(step, "setMirrorRoute").get("percentage")
            if share:
                draft.put("rollout.mirror.percent", f"{draft.whole(where, share)}%")
        elif "setHeaderRoute" in step:
            _pin(draft, where, block(step, "setHeaderRoute"))
        elif "setCanaryScale" in step:
            draft.note(f"{where} setCanaryScale", "pods follow the next weight", "nothing to do")
        elif "experiment" in step:
            draft.note(
                f"{where} experiment", "not carried over", "the mirror shows a version first"
            )
        else:
            draft.note(f"{where} {', '.join(step)}", "there is no such step", "do without it")
    if len(found) > 20:
        draft.note("steps", f"{len(found)} are more than 20", "the first 20 are kept")
    if found:
        draft.put("rollout.steps", found[:20])
    elif steps:
        draft.note(
            "steps", "no weight between 0 and 100", "Tidegate's own steps hold: 1, 5, 25, 50"
        )


def _pin(draft: Draft, where: str, route: Mapping[str, Any]) -> None:
    matches = items(dict(route), "match")
    exact = {
        str(m.get("headerName")): str(block(m, "headerValue")["exact"])
        for m in matches
        if block(m, "headerValue").get("exact")
    }
    if matches and len(exact) == len(matches):
        draft.put("rollout.pin.headers", exact)
    elif matches:
        draft.note(
            f"{where} setHeaderRoute",
            "a pattern cannot be pinned",
            "name exact headers in rollout.pin.headers",
        )


def _blue_green(draft: Draft, green: Document, templates: Mapping[Any, Document]) -> None:
    draft.put("rollout.strategy", "BlueGreen")
    _time(draft, "rollout.bake", green, "scaleDownDelaySeconds")
    _time(draft, "rollout.keepFailed", green, "abortScaleDownDelaySeconds")
    if green.get("previewService"):
        draft.note(
            f"previewService {green['previewService']}",
            "there is no second address",
            "rollout.pin.headers leads requests to the new version",
        )
    if green.get("autoPromotionEnabled") is False or green.get("autoPromotionSeconds"):
        draft.note("autoPromotion", "golden requests and counters decide", _GATE)
    for key in ("prePromotionAnalysis", "postPromotionAnalysis"):
        if green.get(key):
            _analysis(draft, key, block(green, key), templates)
    read = {
        *("activeService", "previewService", "autoPromotionEnabled", "autoPromotionSeconds"),
        *("scaleDownDelaySeconds", "abortScaleDownDelaySeconds", "prePromotionAnalysis"),
        *("postPromotionAnalysis", "maxUnavailable", "activeMetadata", "previewMetadata"),
    }
    for key in sorted(set(green) - read):
        draft.note(f"strategy.blueGreen.{key}", "there is no field for it", "do without it")


def _analysis(draft: Draft, where: str, run: Document, templates: Mapping[Any, Document]) -> None:
    for one in items(run, "templates"):
        name = one.get("templateName")
        if name not in templates:
            draft.note(
                f"{where} {name}",
                "its AnalysisTemplate is not in the file",
                "errors: slo.maxErrorRate; latency: slo.latency; else rollout.gates",
            )
            continue
        for metric in items(templates[name], "metrics"):
            _metric(draft, f"{where} {name}", metric)


def _metric(draft: Draft, where: str, metric: Mapping[str, Any]) -> None:
    called = str(metric.get("name"))
    said = str(metric.get("successCondition") or "")
    condition = _CONDITION.fullmatch(said)
    rate = None
    if condition:
        sign, number = condition[1], Decimal(condition[2])
        if sign in (">=", ">") and re.search(r"success|avail", called, re.I):
            rate = 1 - number
        elif sign in ("<=", "<") and re.search(r"err|fail|5xx", called, re.I):
            rate = number
    if rate is not None and 0 < rate < 1 and rate * 100 == round(rate * 100, 3):
        percent = f"{(rate * 100).normalize():f}%"
        draft.put("slo.maxErrorRate", percent)
        draft.note(
            f"{where} {called}",
            f"{said} became slo.maxErrorRate {percent}, judged by what the sidecars count",
            "look whether the query counted the same",
        )
    elif re.search(r"laten|duration|p9\d|time", called, re.I):
        draft.note(f"{where} {called}", "its unit is not known", "give --latency, such as 100ms")
    else:
        draft.note(
            f"{where} {called}",
            "not carried over",
            "whoever knows it can set a condition that rollout.gates names",
        )
