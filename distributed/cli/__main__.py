"""`python -m distributed.cli` is `trustsweep`."""

from distributed.cli.app import main

main()
