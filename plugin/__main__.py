"""`python -m plugin`: the entry point of the image."""

from plugin.container import main

if __name__ == "__main__":
    main()
