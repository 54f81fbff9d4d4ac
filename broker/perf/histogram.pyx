"""A histogram of latencies in nanoseconds with slots of constant relative width: fixed memory, exact counts, values within 1/128.

The publisher and the consumer fill one each without the GIL; reports are merged from all processes in the parent, so percentiles are those
of all samples, never averages of percentiles.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memset

cdef extern from *:
    int __builtin_clzll(unsigned long long) noexcept nogil


cdef inline unsigned int slot_of(uint64_t value_ns) noexcept nogil:
    cdef unsigned int shift
    if value_ns < (2 << SLOT_BITS):
        return <unsigned int>value_ns
    if value_ns >= (<uint64_t>1 << VALUE_BITS):
        return SLOTS - 1
    shift = 63 - __builtin_clzll(value_ns) - SLOT_BITS
    return (shift << SLOT_BITS) + <unsigned int>(value_ns >> shift)


cdef inline uint64_t highest_in(unsigned int slot) noexcept nogil:
    """The largest value that falls into `slot`: a percentile is never told smaller than it was."""
    cdef unsigned int shift
    if slot < (2 << SLOT_BITS):
        return slot
    shift = (slot >> SLOT_BITS) - 1
    return ((<uint64_t>(slot - (shift << SLOT_BITS)) + 1) << shift) - 1


cdef class Histogram:
    cdef void add(self, uint64_t value_ns, uint64_t times) noexcept nogil:
        self.counts[slot_of(value_ns)] += times
        self.total += times
        self.sum_ns += value_ns * times
        if value_ns > self.max_ns:
            self.max_ns = value_ns

    def record(self, uint64_t value_ns, uint64_t times=1):
        """Count `value_ns` (0 to 2^64 - 1; beyond 2^40 it shares the last slot) `times` times."""
        self.add(value_ns, times)

    def reset(self):
        """Forget everything recorded so far."""
        memset(self.counts, 0, sizeof(self.counts))
        self.total = self.sum_ns = self.max_ns = 0

    def merge(self, Histogram other not None):
        """Add all samples of `other` to these."""
        cdef unsigned int slot
        for slot in range(SLOTS):
            self.counts[slot] += other.counts[slot]
        self.total += other.total
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def percentile_ns(self, double share):
        """The smallest recorded value (rounded up by at most 1/128) that `share` of all samples do not exceed; 0 without samples.

        `share` is within 0 < share <= 1, else ValueError.
        """
        cdef unsigned int slot
        cdef uint64_t seen = 0
        cdef double wanted
        if not 0 < share <= 1:
            raise ValueError(f"a share lies above 0 and up to 1, not {share}")
        wanted = share * self.total
        for slot in range(SLOTS):
            seen += self.counts[slot]
            if seen and seen >= wanted:
                # The last slot is open to the top; nothing is larger than the largest.
                return min(highest_in(slot), self.max_ns) if slot < SLOTS - 1 else self.max_ns
        return self.max_ns

    @property
    def mean_ns(self):
        """Mean of all samples, 0.0 without any."""
        return self.sum_ns / <double>self.total if self.total else 0.0

    def dump(self):
        """All counts as a JSON-ready map for `restore`: only slots that were hit are in it."""
        cdef unsigned int slot
        return {
            "slots": [[slot, self.counts[slot]] for slot in range(SLOTS) if self.counts[slot]],
            "sum_ns": self.sum_ns,
            "max_ns": self.max_ns,
        }

    @staticmethod
    def restore(dumped):
        """The histogram that `dump` wrote. Raises ValueError for a slot that does not exist."""
        cdef Histogram histogram = Histogram()
        for slot, count in dumped["slots"]:
            if not 0 <= slot < SLOTS:
                raise ValueError(f"no slot {slot}")
            histogram.counts[<unsigned int>slot] = count
            histogram.total += <uint64_t>count
        histogram.sum_ns = dumped["sum_ns"]
        histogram.max_ns = dumped["max_ns"]
        return histogram
