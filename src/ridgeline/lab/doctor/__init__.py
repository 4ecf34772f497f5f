"""What this machine offers, what is blocked and how to enable it."""
