"""Pauses between put-backs, where somebody else insists. Pure."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

REMEMBERED: Final = 10_000
"""Objects of which it is remembered what was last wished."""


@dataclass
class PutBacks:
    """How often a child was put back, so that two who insist do not spin. Times are seconds.

    Attributes:
        first_s: pause after the first time.
        limit_s: longest pause.
        calm_s: after so long without a quarrel, counting begins anew.
    """

    first_s: float = 1.0
    limit_s: float = 600.0
    calm_s: float = 1800.0
    _by_uid: dict[str, tuple[int, float]] = field(default_factory=dict)
    _wishes: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def wait_s(self, uid: str, wish: str, now: float) -> float:
        """How long to wait before putting back again; 0: now.

        Only the same wish again has to wait: a new one (weights of a rollback) goes at once.
        """
        if self._wishes.get(uid) != wish:
            return 0.0
        times, last = self._by_uid.get(uid, (0, 0.0))
        if times == 0 or now - last > self.calm_s:
            return 0.0
        pause = min(self.limit_s, self.first_s * 2.0 ** min(times - 1, 60))
        return max(0.0, pause - (now - last))

    def wished(self, uid: str, wish: str) -> None:
        """This is being asked of it now."""
        self._wishes[uid] = wish
        self._wishes.move_to_end(uid)
        while len(self._wishes) > REMEMBERED:
            self._wishes.popitem(last=False)

    def done(self, uid: str, now: float) -> None:
        """It was put back now."""
        times, last = self._by_uid.get(uid, (0, now))
        self._by_uid[uid] = (1 if now - last > self.calm_s else times + 1, now)
        for old in [u for u, (_, at) in self._by_uid.items() if now - at > self.calm_s]:
            del self._by_uid[old]
