"""What a ModelDeployment is doing, and why, as one JSON document: on it all views stand.

The command line draws it as text, the dashboard as a page. Pure, and quick to import: it reads the
API server's own documents of any age of the operator, in which every field may be missing.
"""

from tidegate.view.reasons import Explanation, explanation, subject
from tidegate.view.timeline import timeline
from tidegate.view.whole import VERSION, document, summary

__all__ = ["VERSION", "Explanation", "document", "explanation", "subject", "summary", "timeline"]
