"""From the naive loop to the full engine, one switch a rung."""
