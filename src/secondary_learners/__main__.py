"""`python -m secondary_learners` is `learners`."""

from secondary_learners.cli import main

if __name__ == "__main__":
    main()
