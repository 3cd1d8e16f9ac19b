"""Which model, and where its files come from."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.api.block import MAX_INT32, Block, ObjectName
from tidegate.api.patterns import (
    BACKEND_PATTERN,
    ENDPOINT_PATTERN,
    MODEL_NAME_PATTERN,
    REGION_PATTERN,
    SHA256_PATTERN,
)
from tidegate.api.spec.tuning import ModelTuning


class OnChange(StrEnum):
    """What to do when the bytes behind an unchanged URI change."""

    REFUSE = "Refuse"
    NEW_REVISION = "NewRevision"


class Source(Block):
    """Where the model's files come from."""

    uri: str = Field(
        min_length=1,
        max_length=1024,
        description="Where the model's files lie: s3://bucket/path, https://host/path, "
        "hf://owner/name[@revision], pvc://claim/path, oci://registry/repository:tag, "
        "image:///path (inside the runtime image), gs://bucket/path, as://account/container/path, "
        "mlflow://model/version.",
    )
    sha256: str | None = Field(
        None,
        pattern=SHA256_PATTERN,
        # Longer than it can be, so that the pattern's message answers sha256:<digits>.
        max_length=128,
        description="Digest of the model's file tree. Absent: the first fetch pins it.",
    )
    secret_name: ObjectName | None = Field(
        None, description="Secret of this namespace with the credentials; only pods mount it."
    )
    endpoint: str | None = Field(
        None,
        max_length=512,
        pattern=ENDPOINT_PATTERN,
        description="Address of the service behind s3, gs, as, hf or mlflow where it is not the "
        "public one, for example https://minio.example.com [the profile's].",
    )
    region: str | None = Field(
        None, pattern=REGION_PATTERN, max_length=64, description="Region of an s3 store."
    )
    on_change: OnChange = Field(
        OnChange.REFUSE,
        description="Refuse: pods never load other bytes than the first fetch. NewRevision: "
        "changed bytes become a new revision that goes through the rollout.",
    )


class Model(Block):
    """Which model, from where, and how Triton runs it."""

    name: Annotated[str, Field(pattern=MODEL_NAME_PATTERN, min_length=1, max_length=63)] | None = (
        Field(
            None,
            description="Name that clients ask for [metadata.name]; a repository must hold it. "
            "Cannot be changed later.",
        )
    )
    source: Source = Field(description="Where its files come from.")
    backend: Annotated[str, Field(pattern=BACKEND_PATTERN, min_length=1, max_length=63)] | None = (
        Field(None, description="Triton backend [found out from the files].")
    )
    triton_version: int | None = Field(
        None,
        ge=1,
        le=MAX_INT32,
        description="Serve this version folder only [Triton's own policy: the latest].",
    )
    config: ModelTuning = Field(default_factory=ModelTuning, description="Triton tuning.")
