/* Accesses whose transfers are known; known.c is instrumented like the allocator. */
#ifndef BENCH_LINES_KNOWN_H
#define BENCH_LINES_KNOWN_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

void known_atomic_add(_Atomic(uint64_t) *counter);
void known_atomic_swap(_Atomic(uint64_t) *counter); /* compare and swap, which fails */
void known_add(uint64_t *counter);
void known_store(uint64_t *word, uint64_t value);
uint64_t known_load(const uint64_t *word);
void known_clear(void *from, size_t size);
void known_copy(void *to, const void *from, size_t size);

#endif
