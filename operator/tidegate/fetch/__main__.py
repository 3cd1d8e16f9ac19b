"""``python -m tidegate.fetch``."""

import sys

from tidegate.fetch.main import main

sys.exit(main())
