"""Phase 1's client: python client.py --mode benchmark, or --mode concurrent --num-requests 16 --delay-ms 10."""

from ridgeline.cli import phase1_client

if __name__ == "__main__":
    phase1_client()
