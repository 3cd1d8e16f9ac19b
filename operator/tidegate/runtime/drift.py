"""Who owns which field of a live object, and what that says about our wish for it.

The API server keeps, for each manager, the set of fields that it applied or changed
(``metadata.managedFields``). Whoever changes a field of ours takes it out of our set; a field that
we stop applying is still in our set until we apply again. So an apply can be left out exactly if

- our set holds the fields that we want, no fewer (somebody took one) and no more (one is to go),
- and the live values are those that we want.

Fields that others *added* beside ours do not show in our set: `foreign_fields` finds them in the
others' sets.

No schema is needed: the live object's own sets tell which lists are maps by key and which values
are atomic. Inside atomic values the API server may have filled in defaults; those that occur in
our kinds stand in `DEFAULTS`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api.names import CHILDREN_MANAGER, SCALE_MANAGER, STATUS_MANAGER
from tidegate.api.units import canonical_quantity
from tidegate.observed import Object

OUR_MANAGERS: Final = frozenset({CHILDREN_MANAGER, SCALE_MANAGER, STATUS_MANAGER})

Path = tuple[str | int, ...]
Tree = Mapping[str, Any]

# Never part of a field set (structured-merge-diff strips them), or none of an applier's business.
_UNTRACKED_METADATA: Final = frozenset(
    {
        *("name", "namespace", "uid", "resourceVersion", "generation"),
        *("creationTimestamp", "managedFields", "selfLink"),
    }
)

# Filled in by the API server or a CRD's schema inside atomic lists and maps of our kinds.
DEFAULTS: Final[Mapping[str, tuple[Any, ...]]] = {
    "protocol": ("TCP",),  # NetworkPolicy ports
    "apiVersion": ("v1",),  # fieldRef, objectRef
    "group": ("", "gateway.networking.k8s.io"),  # HTTPRoute backendRefs, parentRefs
    "kind": ("Service", "Gateway"),
    "weight": (1,),
    "type": ("PathPrefix", "Exact"),
    "matches": ([{"path": {"type": "PathPrefix", "value": "/"}}],),
    "path": ({"type": "PathPrefix", "value": "/"},),
    "operator": ("Equal",),
    "allocationMode": ("ExactCount",),  # ResourceClaimTemplate requests
    "count": (1,),
}

# Where a value is a quantity, which the API server rewrites in its canonical form.
_QUANTITIES: Final = frozenset({"limits", "requests", "sizeLimit", "divisor", "capacity"})


@dataclass(frozen=True)
class Difference:
    """Why an apply is needed.

    Attributes:
        path: the first field found to differ.
        taken: whether somebody else changed or removed a field of ours (otherwise it is us who
            want something new).
        reason: in words.
    """

    path: Path
    taken: bool
    reason: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.reason}"


@dataclass(frozen=True)
class ForeignField:
    """A field that somebody else added to an object of ours.

    Attributes:
        path: where it is in the live object; numbers are positions in lists.
        manager: who owns it.
    """

    path: Path
    manager: str


def dotted(path: Path) -> str:
    """A path for reading, such as ``spec.template.spec.containers[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "."


def pointer(path: Path) -> str:
    """The path as a JSON pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def field_set(
    live: Object, manager: str, *, operation: str = "Apply", subresource: str = ""
) -> Tree | None:
    """The fields that a manager owns by that operation; None if it never did it."""
    for entry in live["metadata"].get("managedFields") or ():
        if (
            entry.get("manager") == manager
            and entry.get("operation") == operation
            and entry.get("subresource", "") == subresource
        ):
            fields: Tree = entry.get("fieldsV1") or {}
            return fields
    return None


def owners(live: Object, path: Sequence[str]) -> frozenset[str]:
    """Managers that own a plain field (no lists on the way), such as spec, replicas."""
    found = set()
    for entry in live["metadata"].get("managedFields") or ():
        node: Any = entry.get("fieldsV1") or {}
        for part in path:
            node = node.get(f"f:{part}") if isinstance(node, Mapping) else None
            if node is None:
                break
        else:
            found.add(str(entry.get("manager")))
    return frozenset(found)


def difference(
    desired: Object, live: Object, manager: str, *, subresource: str = ""
) -> Difference | None:
    """Why `desired` must be applied by that manager, or None if that would change nothing."""
    tree = field_set(live, manager, subresource=subresource)
    if tree is None:
        return Difference((), True, f"{manager} owns nothing of it yet")
    return _compare(_tracked(desired), tree, _tracked(live), ())


def _tracked(obj: Object) -> dict[str, Any]:
    metadata = {
        k: v for k, v in (obj.get("metadata") or {}).items() if k not in _UNTRACKED_METADATA
    }
    rest = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind", "metadata")}
    return rest | ({"metadata": metadata} if metadata else {})


def _compare(desired: Any, tree: Tree, live: Any, path: Path) -> Difference | None:
    if isinstance(desired, Mapping):
        return _compare_map(desired, tree, live, path)
    if isinstance(desired, list):
        return _compare_list(desired, tree, live, path)
    return _compare_value(desired, live, path)


def _compare_map(
    desired: Mapping[str, Any], tree: Tree, live: Any, path: Path
) -> Difference | None:
    if not tree:
        return _compare_value(desired, live, path)  # owned as a whole
    live = live if isinstance(live, Mapping) else {}
    for name, value in desired.items():
        if value is None:
            continue
        here = (*path, name)
        node = tree.get(f"f:{name}")
        if node is None:
            if _is_zero(value) and _is_zero(live.get(name)):
                continue
            return Difference(here, True, "not ours any more")
        found = _compare(value, node, live.get(name), here)
        if found is not None:
            return found
    for name in tree:
        if name.startswith("f:") and desired.get(name[2:]) is None:
            return Difference((*path, name[2:]), False, "not wanted any more")
    return None


def _compare_list(desired: list[Any], tree: Tree, live: Any, path: Path) -> Difference | None:
    if not tree:
        return _compare_value(desired, live, path)
    live = live if isinstance(live, list) else []
    unmatched = {name for name in tree if name != "."}
    for position, item in enumerate(desired):
        here = (*path, position)
        name = next((n for n in sorted(unmatched) if _is_item(n, item)), None)
        if name is None:
            return Difference(here, True, "not ours any more")
        unmatched.discard(name)
        at = _position(name, live)
        if at is None:
            return Difference(here, True, "is gone")
        found = _compare(item, tree[name], live[at], here) if name.startswith("k:") else None
        if found is not None:
            return found
    if unmatched:
        return Difference((*path, min(unmatched)), False, "not wanted any more")
    return None


def _compare_value(desired: Any, live: Any, path: Path) -> Difference | None:
    if _same(desired, live, quantity=bool(_QUANTITIES.intersection(map(str, path)))):
        return None
    return Difference(path, False, f"is {_short(live)}, shall be {_short(desired)}")


def _is_item(name: str, item: Any) -> bool:
    """Whether a set's element name, such as ``k:{"name":"triton"}``, means this list item."""
    if name.startswith("v:"):
        return bool(json.loads(name[2:]) == item)
    if not name.startswith("k:") or not isinstance(item, Mapping):
        return False
    keys = json.loads(name[2:])
    return all(item[k] == v if k in item else v in DEFAULTS.get(k, ()) for k, v in keys.items())


def _position(name: str, live: Sequence[Any]) -> int | None:
    return next((i for i, item in enumerate(live) if _is_item(name, item)), None)


def _is_zero(value: Any) -> bool:
    """Whether Go leaves the value out when it writes a document."""
    return (
        value is None
        or value in ("", 0, False)
        or (isinstance(value, Mapping | list) and not value)
    )


def _same(desired: Any, live: Any, *, quantity: bool) -> bool:
    """Whether a value that is owned as a whole is as desired, the API server's defaults apart."""
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return live is None and not desired
        return all(
            _same(value, live.get(name), quantity=quantity or name in _QUANTITIES)
            for name, value in desired.items()
        ) and all(
            live[name] in DEFAULTS.get(name, ()) or _is_zero(live[name])
            for name in live
            if name not in desired
        )
    if isinstance(desired, list):
        if not isinstance(live, list):
            return live is None and not desired
        return len(desired) == len(live) and all(
            _same(d, e, quantity=quantity) for d, e in zip(desired, live, strict=True)
        )
    if type(desired) is type(live) and desired == live:
        return True
    if live is None:
        return _is_zero(desired)
    return quantity and _same_quantity(desired, live)


def _same_quantity(desired: Any, live: Any) -> bool:
    try:
        return canonical_quantity(desired) == canonical_quantity(live)
    except ValueError:
        return False


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."


def foreign_fields(
    desired: Object, live: Object, *, ignored: Iterable[Path] = ()
) -> list[ForeignField]:
    """The fields that others added to an object of ours, outside of metadata and status.

    Args:
        desired: the object as we want it.
        live: the object as it is.
        ignored: paths that others may own, such as the replicas of a Deployment.
    """
    skip = {("metadata",), ("status",), *(tuple(p) for p in ignored)}
    found: dict[Path, str] = {}
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") in OUR_MANAGERS or entry.get("subresource"):
            continue
        for path in _beyond(desired, entry.get("fieldsV1") or {}, live, (), skip):
            found.setdefault(path, str(entry.get("manager")))
    return [ForeignField(path, manager) for path, manager in sorted(found.items(), key=_order)]


def _order(found: tuple[Path, str]) -> tuple[tuple[bool, str | int], ...]:
    return tuple((isinstance(part, str), part) for part in found[0])


def _beyond(desired: Any, tree: Tree, live: Any, path: Path, skip: set[Path]) -> Iterable[Path]:
    """Paths in a set that exist in the live object, but not in the desired one."""
    for name, node in tree.items():
        if name.startswith("f:") and isinstance(live, Mapping):
            field = name[2:]
            here = (*path, field)
            if here in skip or field not in live or (not path and field in ("apiVersion", "kind")):
                continue
            wanted = desired.get(field) if isinstance(desired, Mapping) else None
            if wanted is None and not any(s[: len(here)] == here for s in skip):
                yield here
            elif node:
                yield from _beyond(wanted, node, live[field], here, skip)
        elif name[:2] in ("k:", "v:") and isinstance(live, list):
            at = _position(name, live)
            if at is None:
                continue
            ours = None
            if isinstance(desired, list):
                ours = next((item for item in desired if _is_item(name, item)), None)
            if ours is None:
                yield (*path, at)
            elif node and name.startswith("k:"):
                yield from _beyond(ours, node, live[at], (*path, at), skip)


def removal(live: Object, fields: Iterable[ForeignField]) -> list[dict[str, Any]]:
    """The JSON patch that takes these fields out of exactly this version of the live object."""
    # Later positions first, so that earlier ones stay what they were; and nothing inside of
    # something that goes as a whole.
    paths = sorted({f.path for f in fields}, key=lambda p: _order((p, "")), reverse=True)
    whole = [p for p in paths if not any(p[:n] in paths for n in range(1, len(p)))]
    return [
        {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": live["metadata"]["resourceVersion"],
        },
        *({"op": "remove", "path": pointer(path)} for path in whole),
    ]
