"""A ledger drawn under the measured roofs."""
