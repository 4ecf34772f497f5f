"""The experiments of the course."""
