"""One operation a file, defined by plain torch. Knows tensors; knows no model and no request."""
