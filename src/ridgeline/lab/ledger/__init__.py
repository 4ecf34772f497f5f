"""One ledger: predicted, timed and counted side by side."""
