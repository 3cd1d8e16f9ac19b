"""Is a larger share of the canary's requests bad than of stable's, and since when? Pure."""

from tidegate.analysis.comparison import ERROR_RATIOS, Baseline, add_superiority
from tidegate.analysis.onset import Onset, Stretch


class ShareComparison:
    """The state of the comparison, of failures or of what clients are blamed for.

    Args:
        guess: stable's share, before anything is known of it.

    Attributes:
        baseline: what stable's share was so far.
        onset: the evidence, from each moment on.
        stretch: what speaks against the canary lately.
    """

    __slots__ = ("baseline", "onset", "stretch")

    def __init__(self, guess: float) -> None:
        self.baseline = Baseline(guess)
        self.onset = Onset(len(ERROR_RATIOS))
        self.stretch = Stretch()

    def weigh(
        self, canary: tuple[float, float], stable: tuple[float, float], exponent: float
    ) -> None:
        """A block of both, before `baseline` learns from it.

        Args:
            canary: how many were bad, out of how many.
            stable: the same.
            exponent: divides the evidence, see `tidegate.analysis.tempering`.
        """
        guess = self.baseline.share()
        factors = [0.0] * len(ERROR_RATIOS)
        add_superiority(factors, ERROR_RATIOS, guess, canary, stable)
        self.onset.weigh(factors, canary[1], exponent)
        self.stretch.add(*canary, guess)
