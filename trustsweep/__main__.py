"""`python -m trustsweep` is `trustsweep`."""

from trustsweep.distributed.cli.app import main

main()
