"""Keep freed memory for the next step, where a batch's distributions are many megabytes each.

For a block this large glibc's malloc asks the system, which hands out pages of zeros one by one and
takes them back when the block is freed; an operation on 64 rows of a vocabulary of 150,000 tokens
then spends most of its time on that. Source: mallopt(3), M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD.
"""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # <malloc.h>
KEPT_FREE = 1 << 30  # bytes at the heap's end that may lie free
TAKEN_AT_ONCE = 1 << 26


def keep_freed_memory():
    """Take large blocks from the heap, and keep what is freed. Returns whether malloc obeys.

    Other allocators (musl, macOS, jemalloc) have no such settings, or ignore them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = [(M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_FREE), (M_TOP_PAD, TAKEN_AT_ONCE)]
    return all(mallopt(name, value) == 1 for name, value in settings)
