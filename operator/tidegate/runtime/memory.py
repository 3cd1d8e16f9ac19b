"""Memory that is no longer used goes back to the node, at the moments when much is freed at once.

The first lists are read page by page, many kinds at a time; most of what they allocate is dropped
as soon as an object is in the cache. glibc keeps such pages for later unless it is asked.
"""

import ctypes
import gc


def give_back() -> None:
    """Collect what is unreachable and hand free pages to the kernel; some tens of milliseconds."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; musl has none
    if trim is not None:
        trim(0)
