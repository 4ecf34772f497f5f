"""Programmatic dependent launch, where this Triton knows it: a kernel begins before the one ahead of it is done.

A kernel that is launched so reads what those before it wrote only after gdc_wait, and some program of every one of them
waits: then whoever waits for the last of a chain has waited for all of it. Earlier it may read what was written by
kernels before the first of the chain, which lets nobody begin before it has waited itself; from L2, where that changes
from step to step.
"""

from __future__ import annotations

try:
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

    CAN_DEPEND = True
except ImportError:
    gdc_launch_dependents = gdc_wait = None
    CAN_DEPEND = False

__all__ = ["CAN_DEPEND", "gdc_launch_dependents", "gdc_wait", "launch_options"]


def launch_options(dependent: bool) -> dict[str, bool]:
    """What a kernel is launched with; nothing where it shall not depend, because older Tritons do not know the word."""
    return {"launch_pdl": True} if dependent else {}
