"""Attention over a paged KV cache: one file a backend, each with its own layout. Knows no request."""
