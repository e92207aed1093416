"""Memory that a process keeps: the one setting of the C library that JAX on a CPU gains from."""

import ctypes

# Of glibc's malloc.h: the parameter, and its value.
ARENA_MAX, MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -8, -4, -1, -2
KEPT = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**28}


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for programs on a CPU that call large steps.

    glibc, the C library of most Linux systems, may give large blocks back to the kernel when they
    are freed. A compiled program then pays for its temporary arrays and results at every call, page
    by page. Whether it does can differ between processes: a depthwise layer's output and gradients
    took 4 to 15 ms in eight of them, and 3.6 to 4.9 in six after this call. The process then holds
    on to the most memory that it has used. It is the same as ``MALLOC_ARENA_MAX=1
    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_TOP_PAD_=268435456`` in the
    environment.

    Call it once, at the top of a script: after the first computation it does little, as JAX's
    threads have their memory by then.

    Returns:
        Whether the C library took the settings; False, and no effect, where it is not glibc.

    Source: mallopt(3) of the Linux manual.

    >>> import subprocess, sys  # in a process of its own, as it cannot be undone
    >>> subprocess.run([sys.executable, "-c", "import fnn; fnn.keep_memory()"]).returncode
    0
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in KEPT.items())
