"""The benchmark program: `make bench`, or `python -m bench --help`. Not part of the service."""
