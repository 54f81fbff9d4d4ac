"""A function that does nothing and that callgrind can be told to look for: `bench.counted` calls it before and after what is counted."""


def mark():
    """Nothing. Its symbol ends in `_mark`."""
