"""``python -m msgtap.cli``: the command, where its script is not on the path."""

from msgtap.cli import main

main()
