"""Which revision is asked for: one that is remembered, or one that is born now. Pure."""

from collections.abc import Mapping

from tidegate import source, verbs
from tidegate.api.spec import Spec
from tidegate.observed import Observed
from tidegate.platform import Platform
from tidegate.record import Record
from tidegate.resources.birth import manifests
from tidegate.resources.pod import Parts
from tidegate.revision import (
    Revision,
    child_name,
    pin_name,
    pod_shape,
    revision_hash,
    with_record,
)


class CannotBeBornError(Exception):
    """The spec's revision cannot be made; nothing of it exists.

    Attributes:
        reason: CamelCase, for conditions.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def asked_for(
    spec: Spec,
    observed: Observed,
    platform: Platform,
    known: Mapping[str, Revision],
    record: Record,
    request: verbs.Request | None,
) -> Revision:
    """The revision that is asked for: remembered, or born now.

    Of several with the spec's shape it is the one that answers the version of the source that was
    last seen, or else (after a `restart`) the newest.

    Raises:
        CannotBeBornError: it needs something that the platform does not have.
    """
    shape = pod_shape(spec)
    hash_ = revision_hash(shape)
    if request is not None and request.verb is verbs.Verb.RESTART:
        again = revision_hash(shape, f"restart {request.id}")
        return known.get(again) or _born(spec, observed, platform, known, again)
    if record.target_for == hash_ and record.target in known:
        return known[record.target]
    alike = [r for r in known.values() if r.hash == hash_ or revision_hash(r.shape) == hash_]
    look = source.seen(record, spec)
    if alike and look.version:
        answer = source.answering(shape, look, alike, known)
        if answer in known:
            return known[answer]
        if source.follows(spec):
            return _born(spec, observed, platform, known, answer)
    if alike:
        return max(alike, key=lambda r: r.number)
    return _born(spec, observed, platform, known, hash_)


def _born(
    spec: Spec,
    observed: Observed,
    platform: Platform,
    known: Mapping[str, Revision],
    hash_: str,
) -> Revision:
    """A new revision.

    Raises:
        CannotBeBornError: it needs something that the platform does not have.
    """
    name = observed.deployment["metadata"]["name"]
    shape = pod_shape(spec)
    profile = platform.profile(spec.runtime.profile)
    if profile is None:
        names = ", ".join(sorted(platform.profiles)) or "none"
        raise CannotBeBornError(
            "ProfileNotFound",
            f"runtime.profile: the platform has no profile {spec.runtime.profile!r} "
            f"(it has: {names}). Use one of them, or none.",
        )
    account = spec.runtime.service_account_name
    if account is not None and account not in platform.allowed_service_accounts:
        raise CannotBeBornError(
            "ServiceAccountNotAllowed",
            f"runtime.serviceAccountName: {account!r} is not on the platform's list "
            "(allowedServiceAccounts). Ask the platform team, or leave it out.",
        )
    gpu = spec.runtime.gpu
    if gpu.count and gpu.dra and "ResourceClaimTemplate" not in observed.present_kinds:
        raise CannotBeBornError(
            "ClaimsNotServed",
            "runtime.gpu.dra: this cluster does not serve resource.k8s.io/v1. Ask for a counted "
            "resource instead, or enable dynamic resource allocation.",
        )
    number = max((r.number for r in known.values()), default=0) + 1
    full_name = child_name(name, hash_)
    parts = Parts(
        deployment=name,
        hash=hash_,
        name=full_name,
        pin_name=pin_name(full_name),
        model=spec.model,
        runtime=spec.runtime,
        profile=profile,
        platform=platform,
        golden=spec.golden_requests.config_map_name
        if spec.golden_requests and spec.model.config.warmup
        else None,
        namespace=observed.deployment["metadata"].get("namespace", ""),
    )
    try:
        born = manifests(spec, parts)
    except ValueError as error:
        raise CannotBeBornError("ConfigInvalid", str(error)) from error
    return Revision(hash_, number, shape, with_record(born, shape, number))
