"""``python -m cgankd``: the command, where no script of that name is on the path."""

from cgankd.cli.main import main

main()
