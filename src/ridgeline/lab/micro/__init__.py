"""Every operation alone."""
