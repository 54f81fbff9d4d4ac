"""`python -m leveret` is `leveret`."""

from leveret.ctl.main import main

if __name__ == "__main__":
    main()
