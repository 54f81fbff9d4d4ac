/* The same "random" numbers in every process that starts with it (LD_PRELOAD): `bench.guard` compiles it, for the process that it counts.

   Our hash maps draw a secret each, and where keys lie in them decides how many steps a look-up takes: one or two per cent of routing's
   instructions, which would hide what the guard looks for. Never part of the broker. */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

static uint64_t drawn = 20261124;

ssize_t getrandom(void *into, size_t size, unsigned int flags)
{
    unsigned char *at = into;
    (void)flags;
    for (size_t n = 0; n < size; n++) {
        drawn ^= drawn << 13;   /* Marsaglia's xorshift64 */
        drawn ^= drawn >> 7;
        drawn ^= drawn << 17;
        at[n] = (unsigned char)(drawn >> 24);
    }
    return (ssize_t)size;
}
