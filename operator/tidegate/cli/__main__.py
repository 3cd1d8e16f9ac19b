"""`python -m tidegate.cli`."""

from tidegate.cli.main import main

main()
