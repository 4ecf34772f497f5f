"""Team: the threads that native code shares out its work to. Knows no kernel.

They are of this process, one team for every number of threads that was asked for, whichever libraries use them
(native/team.h). OpenMP has none of them: torch's own threads sleep meanwhile.
"""

from __future__ import annotations

import ctypes

import torch

_TEAMS: dict[int, int] = {}


def team(library: ctypes.CDLL, threads: int | None = None) -> int:
    """The address of a team, for a library that includes team.h. threads: None: as many as torch computes with."""
    count = torch.get_num_threads() if threads is None else threads
    if count not in _TEAMS:
        library.ridgeline_team.argtypes, library.ridgeline_team.restype = (ctypes.c_int,), ctypes.c_void_p
        _TEAMS[count] = library.ridgeline_team(count)
    return _TEAMS[count]
