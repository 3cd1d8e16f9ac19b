"""The target that a ``--publish`` names."""

from tidegate.preparation.publish import mlflow, oci, s3
from tidegate.preparation.publish.target import Target, Tell, parsed


def opened(uri: str, endpoint: str, tell: Tell) -> Target:
    """By its scheme; nothing is asked of it yet.

    Raises:
        StoreError: no such target, or not enough to reach it.
    """
    parsed(uri)
    scheme = uri.partition("://")[0]
    if scheme == "oci":
        return oci.Registry(uri, endpoint, tell)
    if scheme == "mlflow":
        return mlflow.Registry(uri, endpoint, tell)
    return s3.Store(uri, endpoint, tell)
