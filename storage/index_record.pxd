"""The C interface of index records (`index_record.pyx`)."""

from libc.stdint cimport uint8_t, uint64_t

from leveret.storage.segment cimport Segment

cdef object encode_index(const Segment* segment)
cdef Segment* decode_index(uint64_t segment_no, const uint8_t* data, size_t size) except NULL
