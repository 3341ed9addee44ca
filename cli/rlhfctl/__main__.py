"""`python -m rlhfctl`."""

from .main import main

main()
