"""The step loop and the process boundary. Imports core, scheduler, kv; the runner comes in as a protocol; no torch."""
