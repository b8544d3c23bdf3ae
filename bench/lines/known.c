#include "known.h"

#include <string.h>

void known_atomic_add(_Atomic(uint64_t) *counter)
{
    atomic_fetch_add(counter, 1);
}

void known_atomic_swap(_Atomic(uint64_t) *counter)
{
    uint64_t expected = UINT64_MAX;
    atomic_compare_exchange_strong(counter, &expected, 0);
}

void known_add(uint64_t *counter)
{
    ++*counter;
}

void known_store(uint64_t *word, uint64_t value)
{
    *word = value;
}

uint64_t known_load(const uint64_t *word)
{
    return *word;
}

void known_clear(void *from, size_t size)
{
    memset(from, 0, size);
}

void known_copy(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
}
