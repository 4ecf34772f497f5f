"""Hardware counters and energy."""
