"""Models: one family a file, and how their matrices are held. Knows tensors; knows no request and no clock."""
