"""What batching costs and brings, on servers that are started for it."""
