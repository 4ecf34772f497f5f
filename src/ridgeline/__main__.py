"""`python -m ridgeline` is `ridgeline`."""

from ridgeline.cli import main

if __name__ == "__main__":  # the engine's process imports this file again and must not serve
    main()
