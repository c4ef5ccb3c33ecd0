"""`python -m wembed` is the command line."""

from wembed.cli import main

if __name__ == "__main__":
    main()
