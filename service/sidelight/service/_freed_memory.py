"""Keeping what was freed, for a process that needs as much again a moment later."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
# glibc takes no larger threshold on 64 bits.
_LARGEST_MAPPED = 32 << 20
_KEPT = 64 << 20


def keep_freed_memory() -> bool:
    """Tell the allocator to keep up to 64 MiB that were freed; return whether it listens.

    By default glibc maps every array of more than 128 kB afresh and gives it back at once: the
    kernel then clears its pages each time, which was a fifth of the work of detection. Other
    allocators than glibc's are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    options = {_MMAP_THRESHOLD: _LARGEST_MAPPED, _TRIM_THRESHOLD: _KEPT, _TOP_PAD: 1 << 20}
    return all(mallopt(name, value) for name, value in options.items())
