"""The page of the prepared models, made of what was measured and nothing else.

docs/prepared-models.json is what ``python -m e2e.bench.prepared_models`` found;
docs/prepared-models.md is made of it, here, and a test holds the two together.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from e2e.cluster import paths

FORMAT: Final = 1
PAGE: Final = paths.REPOSITORY / "docs" / "prepared-models.md"
DATA: Final = PAGE.with_suffix(".json")
HEAD: Final = (
    *("candidate", "bytes", "accuracy (95 %)", "time of a call", "p50, ms", "p99, ms"),
    *("requests/s", "gate", "through a canary on the cluster"),
)
WIDTH: Final = 110
BACKENDS: Final = {
    "python": "a model of Triton's Python backend that runs ONNX Runtime, since this Triton has no "
    "onnxruntime backend",
    "onnxruntime": "Triton's onnxruntime backend",
}
INTRODUCTION: Final = """
    What [`tidegate prepare`](guide/preparation.md) makes of models that were not made for it:
    trained here on scikit-learn's digits, or taken from a package that carries them. The first
    line of each table is the converted model, *before*; the others are what each optimisation
    made of it, *after*.
"""
FIRST_LOOK: Final = """
    **A first look** (`--quick`): short stretches, few of them. It shows that all of it runs;
    sizes and accuracies are what they are, latencies and rates are not to be relied on.
"""
AGAIN: Final = """
## Again, on another machine

```console
$ PYTHONPATH=operator:. .venv/bin/python -m e2e.bench.prepared_models --patience 60 --page
```

The first time it installs the frameworks, 6 GB. Each result is kept when it is known, so the same
command goes on where it was cut off; `--quick` is a first look, `--only sklearn` one model, and
`--known` measures nothing. The models are in [`trained.py`](../e2e/bench/trained.py).

The column of canaries is made by a command of its own, on the embedded cluster (`make cluster`): it
prepares each model, publishes it to the cluster's S3, and applies what was written.

```console
$ PYTHONPATH=operator:. .venv/bin/python -m e2e.bench.prepared_models --deploy --page
```

The same of one small model, and one that answers wrongly, are tests:
[`test_prepared.py`](../e2e/tests/test_prepared.py).
"""
ALIKE: Final = 0.1
"""Rates that differ by less are called alike: searches for the same one differ by as much."""

COUNTS: Final = ("requests", "failed", "wrong")
"""Of a rollout on the cluster."""

Row = Mapping[str, Any]
Model = Mapping[str, Any]


def collected(
    folder: Path, names: Sequence[str], deployed: Path, page: Path = DATA
) -> dict[str, Any]:
    """What is known of each model, in this order; those that are not known yet are left out.

    Args:
        folder: of what was measured, a JSON file each; of what is not there, the page's stays.
        names: of the models.
        deployed: folder of what became of them on the cluster; as `folder`.
        page: the page's own JSON.
    """
    known = json.loads(page.read_text())["models"] if page.exists() else []
    before = {model["name"]: model for model in known}
    models = []
    for name in names:
        measured, seen = folder / f"{name}.json", deployed / f"{name}.json"
        model = json.loads(measured.read_text()) if measured.exists() else before.get(name)
        if model is None:
            continue
        # Which code it was measured with is of use to the measuring only.
        model["known_by"] = {"machine": model["known_by"]["machine"]}
        if cluster := json.loads(seen.read_text()) if seen.exists() else _cluster(before, name):
            model["cluster"] = cluster
        models.append(model)
    return {"format": FORMAT, "models": models}


def _cluster(before: Mapping[str, Model], name: str) -> Any:
    return before.get(name, {}).get("cluster")


def write(document: Mapping[str, Any]) -> Path:
    """Write the page and its JSON; the page's path."""
    DATA.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(document), encoding="utf-8")
    return PAGE


def page(document: Mapping[str, Any]) -> str:
    """The whole page."""
    models = document["models"]
    parts = [
        "<!-- Written by: python -m e2e.bench.prepared_models --page -->\n# Real models, prepared",
        _text(INTRODUCTION),
        *([_text(FIRST_LOOK)] if any(model["quick"] for model in models) else []),
        _text(_measured(models)),
        "## What it shows",
        _list([*findings(models), *_deployed(models)]),
        "## The tables",
        _list(_legend(models)),
        tables(document).strip(),
        AGAIN.strip(),
    ]
    return "\n\n".join(parts) + "\n"


def _text(words: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(words.split()),
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _list(entries: Iterable[str]) -> str:
    return "\n".join(_text(f"- {entry}", indent="  ") for entry in entries)


def tables(document: Mapping[str, Any]) -> str:
    """A heading and a table for each model."""
    return "\n".join(_table(model) for model in document["models"])


def findings(models: Iterable[Model]) -> list[str]:
    """What stands out, in sentences: refused, slower, faster, not made."""
    refused: list[str] = []
    undecided: list[str] = []
    slower: list[str] = []
    faster: list[str] = []
    not_made: list[str] = []
    for model in models:
        before = next(iter(model["candidates"]))
        if missing := [row["name"] for row in model["candidates"] if "not_made" in row]:
            not_made.append(f"{model['title']} as {', '.join(missing)}")
        for row in model["candidates"][1:]:
            name = f"{model['title']} as {row['name']}"
            if "not_made" in row:
                continue
            if row["verdict"] != "accepted":
                accuracies = f"{before['accuracy']:.3f} before, {row['accuracy']:.3f} after"
                told = f"{name} (accuracy {accuracies})"
                (refused if row["verdict"] == "refused" else undecided).append(told)
                continue
            share = _share(before, row)
            told = f"{name} ({_ratio(row)} of the time of a call{_rate_words(share)})"
            call = _call(row)
            if call > 0 or (call == 0 and share is not None and share < 1 - ALIKE):
                slower.append(told)
            elif call < 0 or (share is not None and share > 1 + ALIKE):
                faster.append(told)
    return [
        line
        for head, names in (
            ("Refused by the accuracy gate", refused),
            ("Not proved with so many samples, thus not served", undecided),
            ("As accurate, and **slower** here", slower),
            ("As accurate, and faster here", faster),
            ("Not made, for there is nothing to make", not_made),
        )
        if (line := f"{head}: {'; '.join(names)}." if names else "")
    ]


def _call(row: Row) -> int:
    """Whether one sample a call is slower (1), faster (-1), or neither is shown (0)."""
    first = row["calls"][0]
    return 1 if first["low"] > 1.0 else -1 if first["high"] < 1.0 else 0


def _share(before: Row, row: Row) -> float | None:
    """Of the converted model's rate; None: one of them holds none, or the client was the limit."""
    was, now = before.get("load") or {}, row.get("load") or {}
    if not was.get("rate_per_s") or not now.get("rate_per_s"):
        return None
    if was["at_least"] or now["at_least"]:
        return None
    return float(now["rate_per_s"] / was["rate_per_s"])


def _rate_words(share: float | None) -> str:
    return "" if share is None else f", {share:.2f} of the requests a second"


def _ratio(row: Row) -> str:
    first = row["calls"][0]
    return f"{first['ratio']:.2f} ({first['low']:.2f} to {first['high']:.2f})"


def _table(model: Model) -> str:
    rates = [row["load"]["common_per_s"] for row in _served(model) if row["load"]["common_per_s"]]
    at = f" Latencies at {rates[0]:g} requests a second." if rates else ""
    what = f"{model['what'][:1].upper()}{model['what'][1:]}."
    judged = f"{model['held_out']} samples held out, a drop of {model['max_drop']:.0%} allowed."
    lines = [
        f"### {model['title']}",
        "",
        _text(f"{what} {judged}{at}"),
        "",
        _line(HEAD),
        _line(["---"] * len(HEAD)),
        *[_line([*_cells(row), _canary(model, row)]) for row in model["candidates"]],
        "",
    ]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    if "not_made" in row:
        return [row["name"], *[""] * (len(HEAD) - 3), row["not_made"]]
    load = row.get("load") or {}
    calls = [f"{c['ratio']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in row.get("calls", [])]
    rate = load.get("rate_per_s")
    return [
        row["name"],
        f"{row['bytes']:,}",
        f"{row['accuracy']:.3f} ({row['accuracy_low']:.3f} to {row['accuracy_high']:.3f})",
        "; ".join(calls) if calls else "1",
        _ms(load.get("p50_ms")),
        _ms(load.get("p99_ms")),
        f"{'at least ' if load['at_least'] else ''}{rate:,.0f}" if rate else "none" if load else "",
        row.get("verdict", ""),
    ]


def _canary(model: Model, row: Row) -> str:
    """What became of the candidate on the cluster, if it was taken there."""
    found = model.get("cluster") or {}
    if row["name"] == found.get("candidate"):
        return f"{_outcome(found)}, {_counted(found)}; {found['setting']}"
    by_hand = found.get("by_hand") or {}
    if row["name"] == by_hand.get("candidate"):
        return f"by hand, past the gate: {_outcome(by_hand)}, {_counted(by_hand)}"
    return ""


def _outcome(found: Mapping[str, Any]) -> str:
    words = {"Promoted": "promoted", "RolledBack": "rolled back"}
    told = words.get(found["outcome"], found["outcome"])
    reason = f" ({found['reason']})" if found["outcome"] != "Promoted" else ""
    return f"{told}{reason} in {found['took_s']:.0f} s"


def _counted(found: Mapping[str, Any]) -> str:
    return f"{found['failed']} of {found['requests']} requests failed, {found['wrong']} wrong"


def _deployed(models: Sequence[Model]) -> Iterator[str]:
    """The canaries of all, in sentences."""
    seen = [model["cluster"] for model in models if "cluster" in model]
    if not seen:
        return
    promoted = sum(found["outcome"] == "Promoted" for found in seen)
    requests, failed, wrong = (sum(found[k] for found in seen) for k in COUNTS)
    missing = "; ".join(model["title"] for model in models if "cluster" not in model)
    yield (
        f"Through a canary on the cluster, beside the converted model: {promoted} of {len(seen)} "
        f"promoted; of {requests:,} requests meanwhile {failed} failed and {wrong} were answered "
        f"wrongly.{f' Not brought there: {missing}.' if missing else ''}"
    )
    for model in models:
        if by_hand := (model.get("cluster") or {}).get("by_hand"):
            yield (
                f"{model['title'][:1].upper()}{model['title'][1:]} as {by_hand['candidate']}, "
                f"served by hand past the gate, under the manifest of the candidate that it "
                f"accepted: {_outcome(by_hand)}, {_counted(by_hand)}."
            )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def _measured(models: Sequence[Model]) -> str:
    if not models:
        return "Nothing has been measured yet."
    machine = models[0]["machine"]
    loads = [x for model in models for x in model["load_average"]]
    busy = [model["busy_before"] for model in models]
    minutes = sum(model["took_s"] for model in models) / 60
    return f"""
        Measured on {models[0]["began"][:10]}, on {machine["cores"]} cores of an {machine["cpu"]},
        {machine["memory_gib"]:.0f} GiB, that served and asked at once; load average
        {min(loads):.1f} to {max(loads):.1f}, {max(busy):.0%} busy before it began; it took
        {minutes:.0f} min. Figures belong to the machine that they were taken on.
    """


def _legend(models: Sequence[Model]) -> Iterator[str]:
    slo = models[0]["slo"] if models else ""
    yield """*accuracy*: on samples that nothing was trained or calibrated on, with Clopper and
        Pearson's 95 % interval; the gate judges the paired difference, which is told much better
        than two accuracies."""
    yield """*time of a call*: over the converted model's, in one process on one thread, both in
        turn, with its 95 % interval: for one sample, and for 16 where one takes less than 5 ms."""
    yield f"""*requests/s*: the highest rate at which `{slo}` was seen to hold, Poisson arrivals,
        open loop, at the setting that tuning picked; *at least* where the client was the limit.
        p50 and p99 are taken at half of what the converted model holds, the same rate for all its
        candidates, even one that cannot hold it."""
    found = [row["load"]["backend"] for model in models for row in _served(model)]
    for backend in sorted(set(found)):
        yield f"Served by {BACKENDS[backend]}."
    yield "What the gate refuses is not served, so it has no latencies."
    if seen := [model["cluster"] for model in models if "cluster" in model]:
        yield f"""*through a canary on the cluster*: the converted model goes live first, with one
            instance and no batches; then the manifest is applied that `tidegate prepare --quick`
            wrote, with the candidate and the setting that it picked for `{seen[0]["slo"]}`, and
            golden requests, a step of half of the traffic and a short bake decide. A client sends
            {seen[0]["rate_per_s"]:g} requests a second through the gateway meanwhile and compares
            every answer with what the two versions are known to answer; after the promotion the
            golden requests are sent once more. Seconds are from the apply to the outcome, on a node
            that is this machine{_busy(seen)}. Seen on {seen[0]["began"][:10]}."""


def _busy(seen: Sequence[Mapping[str, Any]]) -> str:
    loads = [found["load_average"] for found in seen if "load_average" in found]
    if not loads:
        return ""
    return f", with a load average of {min(loads):.1f} to {max(loads):.1f}"


def _served(model: Model) -> list[Row]:
    return [row for row in model["candidates"] if row.get("load")]
