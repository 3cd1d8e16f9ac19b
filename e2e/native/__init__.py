"""Real Triton and Envoy as plain processes: no cluster, no root.

They run with the very configuration that pods get, so the operator's source root is put on the
path: ``python -m`` in the repository's root knows only the root.
"""

import sys
from pathlib import Path

_SOURCES = str(Path(__file__).resolve().parents[2] / "operator")
if _SOURCES not in sys.path:
    sys.path.append(_SOURCES)
