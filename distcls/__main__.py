"""`python -m distcls`, the same as `distcls`."""

from distcls.cli.main import main

main()
