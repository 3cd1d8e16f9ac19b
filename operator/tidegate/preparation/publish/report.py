"""The report of a preparation: one JSON document, and the same as one HTML file. Pure.

The HTML file needs nothing else: no script, no address, its picture inside.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

FORMAT: Final = 1

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #ddd;
  vertical-align: top; }
code { font-size: .85em; overflow-wrap: anywhere; } img { max-width: 100%; }
.taken { font-weight: 600; } .refused { color: #a02020; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e6e6; }
  th, td { border-color: #3a3d44; } .refused { color: #ff8a80; } img { background: #fff; } }
"""


def html(document: Mapping[str, Any], picture: bytes | None) -> str:
    """The report for people.

    Args:
        document: the JSON, as `tidegate.preparation.pipeline` makes it.
        picture: the curve, a PNG; None: there is none.
    """
    name = escape(document["name"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}, prepared</title><style>{_STYLE}</style></head><body>",
        f"<h1>{name}, prepared</h1>",
        f"<p>{escape(document['summary'])}</p>",
        "<h2>Candidates</h2>",
        _candidates(document["candidates"]),
        "<h2>Tuning</h2>",
        *_tuning(document["tuning"], picture),
        "<h2>Lineage</h2>",
        _table(("", ""), _pairs(document["lineage"])),
        "<h2>Published</h2>",
        _table(("", ""), _pairs(document["published"])),
        "<h2>Made by</h2>",
        f"<p><code>{escape(document['command'])}</code></p>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _candidates(found: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in found:
        tuned = one.get("held")
        kind = "taken" if one["taken"] else "refused" if not one["accepted"] else ""
        rows.append(
            (
                kind,
                one["name"],
                f"{one['bytes']:,}" if one["bytes"] is not None else "",
                one["verdict"],
                one["speed"],
                f"{tuned['ratePerSecond']:,.0f}" if tuned else "",
                f"{tuned['cpuSecondsPerMillion']:,.0f}" if tuned else "",
                "; ".join(one["steps"]),
            )
        )
    head = (
        "candidate",
        "bytes",
        "accuracy gate",
        "one call, before load",
        "requests/s in the SLO",
        "CPU s per million",
        "how it was made",
    )
    return _table(head, [row[1:] for row in rows], [row[0] for row in rows])


def _tuning(found: Mapping[str, Any], picture: bytes | None) -> list[str]:
    parts = [f"<p>{escape(found['sentence'])}</p>"]
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        alt = "Latency against requests a second"
        parts.append(f'<img alt="{alt}" src="data:image/png;base64,{encoded}">')
    rows = [
        (
            f"{s['rate_per_s']:,.1f}",
            f"{s['requests']:,}",
            f"{s['late']:,}",
            _ms(s["p50_ms"]),
            _ms(s["p99_ms"]),
            f"{1e6 * s['cpu_s'] / s['requests']:,.0f}",
            _ms(s["client_late_p99_ms"]),
        )
        for s in found["curve"]
    ]
    head = ("requests/s", "sent", "late", "p50", "p99", "CPU s per million", "client late, p99")
    parts.append(_table(head, rows))
    parts.append("<p>What another objective would cost:</p>")
    others = [_other(one) for one in found["others"]]
    asked = ("objective", "cheapest setting", "requests/s", "CPU s per million", "known")
    parts.append(_table(asked, others))
    return parts


def _other(found: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    known = "measured" if found["measured"] else "by the capacity model"
    if found["setting"] is None:
        return found["objective"], "none was seen to hold it", "", "", known
    rate, cost = found["ratePerSecond"], found["cpuSecondsPerMillion"]
    return found["objective"], found["setting"], f"{rate:,.0f}", f"{cost:,.0f}", known


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f} ms"


def _pairs(found: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            pairs += _pairs(value, f"{before}{name} ")
        else:
            pairs.append((f"{before}{name}", "not stated" if value is None else str(value)))
    return pairs


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kinds: Sequence[str] | None = None
) -> str:
    lines = ["<table>"]
    if any(head):
        lines.append("<tr>" + "".join(f"<th>{escape(h)}</th>" for h in head) + "</tr>")
    for number, row in enumerate(rows):
        kind = f' class="{kinds[number]}"' if kinds and kinds[number] else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>")
    return "\n".join([*lines, "</table>"])
