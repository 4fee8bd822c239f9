"""`python -m ratelimit_service.cli` is `tidegate`."""

from ratelimit_service.cli.main import main

if __name__ == "__main__":
    main(prog_name="tidegate")
