"""A black box's view of a server: load over HTTP, what it took, and drawings of it. Imports core.errors; no engine."""
