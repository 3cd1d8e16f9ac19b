"""What the platform team sets once for all models: images, profiles, policies.

The chart writes it as a YAML file that the operator reads at start; it never comes from a
ModelDeployment.
"""

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from tidegate.api.block import Block, LabelValue, ObjectName
from tidegate.api.spec import EnvVar, Toleration

MAX_MODEL_BYTES = 1 << 40
MAX_MODEL_FILES = 100_000


class Images(Block):
    """Images of the pods' containers, by digest or exact tag."""

    triton: str = "nvidia/tritonserver:24.10-py3"
    envoy: str = "envoyproxy/envoy:v1.40.0"
    fetch: str = "tidegate/fetch:0.1.0"


class Profile(Block):
    """A named set of runtime choices that a ModelDeployment may refer to.

    Resolved into a revision when it is born: editing a profile touches no running revision.
    """

    image: str | None = Field(None, description="Triton image [images.triton].")
    image_pull_secrets: tuple[ObjectName, ...] = ()
    ca_bundle_config_map: ObjectName | None = Field(
        None, description="ConfigMap with ca.crt, in the model's namespace."
    )
    proxy: dict[str, str] = Field(
        default_factory=dict, description="HTTP_PROXY, HTTPS_PROXY, NO_PROXY of the fetch."
    )
    endpoint: str | None = Field(None, description="Default model.source.endpoint.")
    region: str | None = Field(None, description="Default model.source.region.")
    runtime_class_name: ObjectName | None = None
    tolerations: tuple[Toleration, ...] = ()
    node_selector: dict[str, LabelValue] = Field(default_factory=dict)
    env: tuple[EnvVar, ...] = ()


PublicKey = Annotated[
    str, Field(pattern=r"^-----BEGIN PUBLIC KEY-----\s[\s\S]+-----END PUBLIC KEY-----\s*$")
]
"""PEM."""


class Verify(Block):
    """By which keys a model's files are to be signed."""

    keys: tuple[PublicKey, ...] = Field(
        min_length=1, description="Elliptic curve (P-256, P-384, P-521); one of them has signed."
    )
    required: bool = Field(True, description="False: files without a signature pass, too.")


class VerifyRule(Verify):
    """Which models that is asked of."""

    namespaces: tuple[str, ...] = Field((), description="Globs; empty: all.")
    sources: tuple[str, ...] = Field((), description="Where URIs begin; empty: all.")

    def fits(self, namespace: str, uri: str) -> bool:
        """Whether it is about this model."""
        return (
            not self.namespaces or any(fnmatchcase(namespace, glob) for glob in self.namespaces)
        ) and (not self.sources or any(_below(uri, source) for source in self.sources))


def _below(uri: str, source: str) -> bool:
    """Whether an address is a source's, or below it, as it is written.

    One with ``..`` or ``%`` is below none: the server may read it as another. So is what only
    begins alike: ``s3://models/prod`` is not above ``s3://models/production``.
    """
    if "%" in uri or ".." in uri.split("/"):
        return False
    if uri == source or uri.startswith(source if source.endswith("/") else f"{source}/"):
        return True
    scheme, _, rest = source.partition("://")
    versioned = scheme in ("hf", "oci") and "/" in rest and not rest.endswith("/")
    return versioned and uri.startswith((f"{source}:", f"{source}@"))


class FetchPolicy(Block):
    """Where models may come from. Enforced in the fetch container, after DNS and redirects."""

    allowed_schemes: tuple[str, ...] = (
        *("s3", "https", "hf", "pvc", "oci", "image"),
        *("gs", "as", "mlflow"),
    )
    allowed_hosts: tuple[str, ...] = Field((), description="Host globs; empty: any public host.")
    allow_private_addresses: tuple[str, ...] = Field((), description="CIDRs.")
    allow_python_backend: bool = True
    max_bytes: int = MAX_MODEL_BYTES
    max_files: int = MAX_MODEL_FILES
    verify: tuple[VerifyRule, ...] = Field((), description="The first rule that fits counts.")

    def verified(self, namespace: str, uri: str) -> Verify | None:
        """What is asked of a model's signature; None: nothing."""
        rule = next((r for r in self.verify if r.fits(namespace, uri)), None)
        return None if rule is None else Verify(keys=rule.keys, required=rule.required)


class Platform(Block):
    """The platform settings."""

    images: Images = Field(default_factory=Images)
    profiles: dict[str, Profile] = Field(default_factory=dict)
    default_profile: str | None = None
    allowed_service_accounts: tuple[str, ...] = ()
    fetch: FetchPolicy = Field(default_factory=FetchPolicy)
    gpu_toleration: bool = Field(True, description="Tolerate the taint of GPU nodes.")
    operator_namespace: str = "tidegate-system"
    metrics_namespaces: tuple[str, ...] = Field(
        ("monitoring",), description="Namespaces whose pods may read the models' metrics."
    )
    pre_stop_seconds: int = Field(
        10, description="Least time between endpoint removal and Triton's SIGTERM."
    )
    exit_timeout_seconds: int = Field(30, description="Triton's own exit timeout.")

    def profile(self, name: str | None) -> Profile | None:
        """The profile asked for, the default one, or an empty one; None if the name is unknown."""
        name = name if name is not None else self.default_profile
        return Profile() if name is None else self.profiles.get(name)
