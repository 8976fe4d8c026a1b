"""Masks of signals, as /proc shows them."""

STANDARD_SIGNALS = 2**31 - 1
"""Those that have a name. The C library has some above for itself, and ignores one in what `posix_spawn` starts, as
`subprocess` of Python 3.13 does."""
