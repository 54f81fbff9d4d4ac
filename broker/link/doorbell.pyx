"""A doorbell: somebody else's descriptor whose readiness calls a function within the poller's turn, as a listening socket's does.

It owns a duplicate of the descriptor and nothing of what is read from it. An acceptor has one for the line by which sockets are passed on,
and `leveret.link.listener` is one for a listening socket. With `add_reader` each connection would cost a round of the event loop; here it
is served in the turn that finds it. An exception out of the function is reported to the loop and ends nothing.
"""

import os

from leveret.link.stream cimport Stream

cdef enum:
    PAUSED_BY_OWNER = 2


cdef class Doorbell(Stream):
    """`on_ring()` is called once in each turn that finds the descriptor of `file` readable, until `close`. Raises OSError."""

    def __init__(self, poller, file, on_ring):
        self.on_ring = on_ring
        super().__init__(poller, os.dup(file.fileno()))

    cdef int on_readable(self) except -1:
        try:
            self.on_ring()
        except Exception as error:
            self.poller.loop.call_exception_handler({"message": f"error while serving {self!r}", "exception": error})
        return 0

    def be_silent(self):
        """Do not ring until `listen_again`."""
        self.pause(PAUSED_BY_OWNER)

    def listen_again(self):
        """Ring again; at once if there is a reason. Harmless when it was not silent."""
        self.resume(PAUSED_BY_OWNER)
