"""Where a model may come from: addresses, and what goes with which of them."""

from typing import Final

from tidegate.api.cel import Rule, cel_string

SCHEMES: Final[dict[str, tuple[str, str]]] = {
    "s3": (r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/]+)+/?$", "s3://bucket/path"),
    "gs": (r"^gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^/]+)+/?$", "gs://bucket/path"),
    "as": (
        r"^as://[a-z0-9]{3,24}/[a-z0-9$][a-z0-9-]{1,62}(/[^/]+)+/?$",
        "as://account/container/path",
    ),
    "https": (
        r"^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[^/?]+)+/?([?][^?]*)?$",
        "https://host/path, with the host in lower case",
    ),
    "hf": (
        r"^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+)?(/[^/@]+)*/?$",
        "hf://owner/name, hf://owner/name@revision or hf://owner/name@revision/path",
    ),
    "pvc": (r"^pvc://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[^/]+)*/?$", "pvc://claim/path"),
    "oci": (
        r"^oci://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        "oci://registry/repository:tag or oci://registry/repository@sha256:<64 hex digits>",
    ),
    "image": (r"^image:///?[^/]+(/[^/]+)*/?$", "image:///path/in/the/runtime/image"),
    "mlflow": (
        r"^mlflow://[^/@]+/([0-9]{1,9}|@?[A-Za-z][A-Za-z0-9_-]*)$",
        "mlflow://model/version or mlflow://model/@alias",
    ),
}
"""Scheme -> what its URI looks like (RE2), and the same for people."""
SCHEMES_WITH_ENDPOINT: Final = ("s3", "hf", "gs", "as", "mlflow")
CREDENTIAL_QUERY: Final = (
    r"[?&](?i:x-amz-(signature|credential|security-token)|x-goog-(signature|credential)|sig"
    r"|signature|token|access_token|auth|apikey|api_key|key|password|passwd|secret)="
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "spec.model.source.uri",
        f"self.matches('^({'|'.join(SCHEMES)})://')",
        "{strings.quote(self.split(':')[0])} is no scheme that Tidegate fetches from; begin with "
        + ", ".join(f"{s}://" for s in SCHEMES),
    ),
    Rule(
        "spec.model.source.uri",
        "!self.matches('^[a-z0-9]+://[^/]*@') && !self.matches("
        + cel_string(CREDENTIAL_QUERY)
        + ")",
        "the address holds credentials; put them into a Secret and name it in secretName",
    ),
    Rule(
        "spec.model.source.uri",
        "self.matches('^[A-Za-z0-9._~%+=@:,()/?&$-]*$')",
        "{strings.quote(self)} holds a space or a character that an address cannot; "
        "percent-encode it, or rename the file",
    ),
    Rule(
        "spec.model.source.uri",
        "!self.matches('/[.][.]?(/|$)') && !self.matches('%(2[eEfF]|5[cC]|00)')",
        "{strings.quote(self)} steps out of its folder; leave out '.', '..', %2e, %2f and %5c",
    ),
    *(
        Rule(
            "spec.model.source.uri",
            f"!self.startsWith('{scheme}://') || self.matches({cel_string(pattern)})"
            + (" || self.matches('^[a-z0-9]+://[^/]*@')" if scheme in ("https", "oci") else ""),
            f"{{strings.quote(self)}} is no {scheme} address; write {example}",
        )
        for scheme, (pattern, example) in SCHEMES.items()
    ),
    Rule(
        "spec.model.source",
        "!has(self.secretName) || !self.uri.matches('^(pvc|image)://')",
        "secretName {self.secretName} is of no use to {self.uri.split(':')[0]}, which takes no "
        "credentials; leave it out",
        ".secretName",
    ),
    Rule(
        "spec.model.source",
        f"!has(self.endpoint) || self.uri.matches('^({'|'.join(SCHEMES_WITH_ENDPOINT)})://')",
        "an endpoint is of no use to {self.uri.split(':')[0]}; leave it out, or use "
        + ", ".join(SCHEMES_WITH_ENDPOINT),
        ".endpoint",
    ),
    Rule(
        "spec.model.source",
        "!has(self.region) || self.uri.startsWith('s3://')",
        "region {self.region} is of no use to {self.uri.split(':')[0]}; leave it out, or use s3",
        ".region",
    ),
    Rule(
        "spec.model.source",
        "self.onChange != 'NewRevision' || !has(self.sha256)",
        "NewRevision contradicts sha256, which allows one content only; leave out one of the two",
        ".onChange",
    ),
    Rule(
        "spec.model.source",
        "self.onChange != 'NewRevision' || !self.uri.contains('@sha256:')",
        "NewRevision contradicts an address by digest, behind which nothing changes; name a tag, "
        "or leave out onChange",
        ".onChange",
    ),
)
