"""The operator's entry point: ``tidegate-operator``, or ``python -m tidegate.runtime.main``."""

import asyncio
import gc
import sys
from importlib import import_module
from typing import Final

import kopf
import structlog

from tidegate.runtime.leader import LeadershipLostError
from tidegate.runtime.login import login
from tidegate.runtime.operator import Operator
from tidegate.runtime.reconciler import Planner
from tidegate.runtime.settings import Settings, SettingsError, load_platform
from tidegate.runtime.telemetry import set_up_logging
from tidegate.runtime.tracers import log_processors

EXIT_SETTINGS: Final = 2
EXIT_LOST: Final = 3


def planner() -> Planner:
    """The one composer of decisions."""
    found: Planner = import_module("tidegate.plan").plan
    return found


def main() -> int:
    """Run the operator. Returns the exit status."""
    try:
        settings = Settings.from_environment()
        platform = load_platform(settings)
        connection = login()
        processors = log_processors(settings)
    except (SettingsError, kopf.LoginError) as error:
        print(f"tidegate-operator: {error}", file=sys.stderr)
        return EXIT_SETTINGS
    set_up_logging(settings.log_level, settings.log_format, processors)
    decide = planner()
    # What was imported stays for good: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()

    async def run() -> None:
        await Operator(settings, platform, decide, connection).run()

    try:
        asyncio.run(run())
    except LeadershipLostError:
        return EXIT_LOST
    except Exception as error:
        structlog.get_logger(__name__).error("operator failed", exc_info=error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
