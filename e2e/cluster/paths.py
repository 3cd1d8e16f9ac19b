"""Where the embedded cluster keeps its things: state of one cluster, and caches for all of them.

Both lie outside the clone, so a fresh clone on the same machine starts warm.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout this file belongs to."""

STATE = Path(os.environ.get("TIDEGATE_STATE", "/var/lib/tidegate-e2e"))
"""Everything one running cluster writes; removed by `down --purge`."""

CACHE = Path(os.environ.get("TIDEGATE_CACHE", "/var/cache/tidegate"))
"""Built binaries and images, each under a key made of what it was built from."""

GO_SOURCES = Path(__file__).resolve().parent / "go"
"""One go.mod per tool."""

IMAGE_SOURCES = REPOSITORY / "e2e" / "images"
"""The Dockerfiles of the images that stand in for vendors' images."""

KUBECONFIG = STATE / "admin.kubeconfig"
"""Credentials of the cluster's administrator."""
