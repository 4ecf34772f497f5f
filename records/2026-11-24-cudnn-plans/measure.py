"""Decode steps over lengths that were never seen before, with cuDNN's attention and without, in turn.

Meant for a commit before the reference attention set cuDNN's aside; after it both arms are the same.
"""

import statistics
import time

import torch

from ridgeline.build import EngineOrder
from ridgeline.core.config import Config
from ridgeline.lab.rig import Workbench

STEPS = 20

bench = Workbench.open(EngineOrder(Config.of(random_weights="gpt2"), "gpt2", None), lambda *_: None)
for batch in (1, 32):
    for turn in range(6):
        for cudnn in (True, False) if turn % 2 == 0 else (False, True):
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            rig = bench.rig(batch, 120 + 40 * turn, STEPS, seed=turn)
            took_ms = []
            with rig.decoding() as step:
                for _ in range(STEPS):
                    begun = time.perf_counter_ns()
                    step()
                    took_ms.append((time.perf_counter_ns() - begun) / 1e6)
            spread = f"{statistics.median(took_ms):.2f} ms {min(took_ms):.2f} {max(took_ms):.2f}"
            print(batch, turn, "cudnn" if cudnn else "no cudnn", spread, flush=True)
