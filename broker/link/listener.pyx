"""A listener: a listening socket that several processes watch, each by one of these. One of them is woken for each client that comes.

It owns a duplicate of the descriptor and accepts from it; whom the client is served by is its acceptor's business. Were all processes woken
(as an ordinary epoll set does), every client would cost each of them a turn, all but one in vain. The kernel wakes the first that sleeps
in the socket's row of watchers; who has accepted goes to the end of the row. So clients go round, and a busy process is passed over.

Here is also what the kernel is asked and told of a client's socket, in one call without a socket object.
"""

import os

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint16_t
from libc.string cimport memset

from leveret.link.doorbell cimport Doorbell

cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        SOCK_CLOEXEC
        SOCK_NONBLOCK
    ctypedef unsigned int socklen_t
    struct sockaddr:
        unsigned short sa_family
    struct sockaddr_storage:
        pass
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    int getpeername(int fd, sockaddr* address, socklen_t* size)
    int getsockname(int fd, sockaddr* address, socklen_t* size)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_CONGESTION

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<arpa/inet.h>" nogil:
    struct in_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
    uint16_t ntohs(uint16_t port)
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

cdef extern from "<netdb.h>" nogil:
    enum:
        NI_MAXHOST
        NI_NUMERICHOST
    int getnameinfo(
        const sockaddr* address, socklen_t size, char* host, socklen_t host_size, char* service, socklen_t service_size, int flags)


cdef class Listener(Doorbell):
    """`on_ring()` is called in each turn in which a client may be waiting; it calls `accept`. Raises OSError."""

    def __cinit__(self, *args, **kwargs):
        self.exclusive = True

    def accept(self):
        """A client's descriptor, non-blocking and the caller's own; -1 if another process was quicker. Raises OSError."""
        cdef int descriptor = accept4(self.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)
        if descriptor < 0:
            if errno == EAGAIN:
                return -1
            raise OSError(errno, os.strerror(errno))
        self.poller.stand_last(self, self.events)
        return descriptor

    def look_again(self):
        """Whoever was woken for a client may not have taken it: ring if one waits. Harmless when silent or closed."""
        if self.fd >= 0 and not self.paused:
            self.poller.stand_last(self, self.events)


cdef tuple end_of(const sockaddr* address, socklen_t size):
    """Host and port of an address, ("", 0) unless it is one of IP."""
    cdef char host[NI_MAXHOST]
    if address.sa_family == AF_INET:
        inet_ntop(AF_INET, &(<const sockaddr_in*>address).sin_addr, host, sizeof(host))
        return host.decode("ascii"), ntohs((<const sockaddr_in*>address).sin_port)
    if address.sa_family != AF_INET6:
        return "", 0
    # It tells a link-local address's interface too.
    if getnameinfo(address, size, host, sizeof(host), NULL, 0, NI_NUMERICHOST) != 0:
        return "", 0
    return host.decode("ascii"), ntohs((<const sockaddr_in6*>address).sin6_port)


def ends_of(int descriptor):
    """(peer's host, peer's port, our host, our port) of a connected socket; "" and 0 for a Unix socket. Raises OSError if it has gone."""
    cdef sockaddr_storage peer, own
    cdef socklen_t peer_size = sizeof(peer), own_size = sizeof(own)
    memset(&peer, 0, sizeof(peer))
    memset(&own, 0, sizeof(own))
    if getpeername(descriptor, <sockaddr*>&peer, &peer_size) < 0 or getsockname(descriptor, <sockaddr*>&own, &own_size) < 0:
        raise OSError(errno, os.strerror(errno))
    return end_of(<const sockaddr*>&peer, peer_size) + end_of(<const sockaddr*>&own, own_size)


def send_without_pacing(int descriptor):
    """For a TCP socket whose other end is on this machine: have what is written sent at once.

    Many systems pace what they send (`net.ipv4.tcp_congestion_control=bbr`), to find out what a network bears. Here is none, and large
    messages went out in many small parts, each of which woke the client: bodies of 64 KB took 22.9 us of CPU each, 18.6 without. Reno sends
    what the window allows, is in every kernel, and may be chosen by everybody. Where the kernel declines, the socket stays as it is.
    """
    setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, b"reno", 4)
