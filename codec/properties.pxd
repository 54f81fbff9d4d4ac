"""C side of `leveret.codec.properties`: a look at a message's properties that makes no objects.

    content header payload:   class id 2 | weight 2 | body size 8 | property flags 2 … | property list
    properties (ours):                                              `------------- these bytes -------'

Bits of the first flag word, from 15 down, are the fourteen properties in the order of `PropertyFlag`; bit 0 says that another flag word
follows, which for class basic can only be empty.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum PropertyFlag:
    HAS_CONTENT_TYPE = 1 << 15
    HAS_CONTENT_ENCODING = 1 << 14
    HAS_HEADERS = 1 << 13
    HAS_DELIVERY_MODE = 1 << 12
    HAS_PRIORITY = 1 << 11
    HAS_CORRELATION_ID = 1 << 10
    HAS_REPLY_TO = 1 << 9
    HAS_EXPIRATION = 1 << 8
    HAS_MESSAGE_ID = 1 << 7
    HAS_TIMESTAMP = 1 << 6
    HAS_TYPE = 1 << 5
    HAS_USER_ID = 1 << 4
    HAS_APP_ID = 1 << 3
    HAS_CLUSTER_ID = 1 << 2
    MORE_FLAGS = 1                      # bit 1 is no property's; like RabbitMQ we do not look at it

# What `view_properties` may answer.
cdef enum:
    PROPERTIES_OK = 0
    PROPERTIES_MALFORMED = -1           # cut short, bytes left over, flags in a further word
    PROPERTIES_TABLE_MALFORMED = -2
    PROPERTIES_TABLE_TOO_DEEP = -3

cdef struct ShortString:
    const uint8_t* data
    uint8_t size

cdef struct PropertiesView:
    uint16_t flags                      # of the properties that are present; numbers of the others are 0, strings are not touched
    uint8_t delivery_mode
    uint8_t priority
    uint32_t headers_size               # of the table's content, after its length
    const uint8_t* headers
    uint64_t timestamp
    ShortString content_type
    ShortString content_encoding
    ShortString correlation_id
    ShortString reply_to
    ShortString expiration
    ShortString message_id
    ShortString type
    ShortString user_id
    ShortString app_id
    ShortString cluster_id

cdef int view_properties(const uint8_t* at, size_t size, PropertiesView* view) noexcept nogil
cdef object properties_error(int fault)
