"""`python -m bench` is the side-by-side bench (`bench.run`); each layer alone is a module of its own (`python -m bench.links`)."""

from bench.run import main

main()
