"""One thread for torch in every test: small models gain nothing from two, and tests that run side by side lose much."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
