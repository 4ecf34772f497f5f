"""Block ids and counts of the KV cache: who owns which block. Knows no tensor and no request."""
