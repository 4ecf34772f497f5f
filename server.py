"""Phase 1: a batched GPT-2 server. Dynamic batching, a window of 50 ms, at most 8 in a batch, padded rows.

python server.py             serves GPT-2 on http://localhost:8000
python server.py --help      every flag of `ridgeline serve`
"""

if __name__ == "__main__":  # the engine's process imports this file again: it must not serve, and needs no command
    from ridgeline.cli import phase1_server

    phase1_server()
