cpdef bytes with_death(bytes properties, bint own, bytes queue, bytes reason, bytes exchange, bytes routing_key, bint new_key,
                       unsigned long long time_s)
cpdef bint closes_cycle(bytes properties, bytes queue) except -1
