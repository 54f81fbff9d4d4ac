from leveret.link.stream cimport Stream


cdef class Doorbell(Stream):
    cdef object on_ring
