"""The versions of the proof, by name: what is wrong with each, or only odd.

Service times are multiples of `SERVICE_MS`, so that a factor shows in spite of what proxies and a
busy machine add. Shares are of the requests.
"""

from dataclasses import replace
from typing import Final

from e2e.models.faulty.fault import EXIT, RAISE, RESPOND, SLEEP, Fault

SERVICE_MS: Final = 60.0
"""Answers are counted below 50, 70, 100 and 150 ms: what takes 1.3 times as long falls on the other
side of 70 ms, twice as long on the other side of 100 ms."""
TARGET_MS: Final = 300
"""Latency SLO where a scenario has one."""
LONG_MS: Final = 350.0

_FAULTS: Final = {
    # Good ones.
    "plain": Fault(),
    "same": Fault(),
    "background": Fault(fail_share=0.003),
    "background-too": Fault(fail_share=0.003),
    "nearly-slow": Fault(slow_share=0.045, slow_ms=1.5 * TARGET_MS),
    "nearly-slow-too": Fault(slow_share=0.045, slow_ms=1.5 * TARGET_MS),
    "slow-first-50": Fault(slow_first=50, slow_ms=3 * TARGET_MS),
    "10-percent-slower": Fault(service_ms=1.1 * SERVICE_MS),
    "long": Fault(service_ms=LONG_MS),
    # Bad ones.
    "fails-all": Fault(fail_share=1.0),
    "fails-20": Fault(fail_share=0.2),
    "fails-5": Fault(fail_share=0.05),
    "fails-5-too": Fault(fail_share=0.05),
    "fails-2": Fault(fail_share=0.02),
    "error-responses": Fault(fail_share=1.0, fail_by=RESPOND),
    "refuses-all": Fault(other_input=True),
    "2x-slower": Fault(service_ms=2 * SERVICE_MS),
    "1.3x-slower": Fault(service_ms=1.3 * SERVICE_MS),
    "slow-tail": Fault(slow_share=0.05, slow_ms=10 * SERVICE_MS),
    "hangs": Fault(hang_after=200),
    "leaks": Fault(leak_mib=32),
    "crashes": Fault(load=RAISE),
    "exits": Fault(load=EXIT),
    "never-ready": Fault(load=SLEEP),
    "wrong": Fault(wrong=True),
    "good-until-8": Fault(service_ms=LONG_MS, most_in_flight=8),
}
NAMES: Final = tuple(_FAULTS)


def version(name: str, seed: int = 0) -> Fault:
    """A version by name; another seed is another artefact with the same kind of fault.

    Raises:
        KeyError: there is none of that name.
    """
    return replace(_FAULTS[name], says=name, seed=seed)
