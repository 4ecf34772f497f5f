"""What every test starts from: one thread for torch, and Ctrl-C as a terminal has it."""

from __future__ import annotations

import os
import signal
import threading

# Small models gain nothing from two threads, and tests that run side by side lose much.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the suite in the background has it ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
