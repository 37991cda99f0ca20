"""``python -m cgankd``: the command line without the installed script."""

from cgankd.cli.main import main

main()
