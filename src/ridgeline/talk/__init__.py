"""One person and one model in a terminal. Knows no HTTP server from within and no engine."""
