"""`python -m ridgeline` is `ridgeline`."""

if __name__ == "__main__":  # the engine's process imports this file again: it must not serve, and needs no command
    from ridgeline.cli import main

    main()
