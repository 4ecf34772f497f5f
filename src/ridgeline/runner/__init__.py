"""The runner: one plan on the device. Knows slots, tensors and blocks; knows no request and no queue."""
