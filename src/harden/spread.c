#include "harden/spread.h"

#include "harden/map.h"
#include "rt/process.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Byte i of entry n: the i-th set bit of n, for each n of a byte. */
#define PLACE(n, bit) ((uint64_t)((n) >> (bit) & 1) * (bit) << 8 * ONES((n) & ((1u << (bit)) - 1)))
#define ONES(n) (((n) & 1) + ((n) >> 1 & 1) + ((n) >> 2 & 1) + ((n) >> 3 & 1) + ((n) >> 4 & 1) + ((n) >> 5 & 1) + ((n) >> 6 & 1))
#define PLACES(n) (PLACE(n, 1) | PLACE(n, 2) | PLACE(n, 3) | PLACE(n, 4) | PLACE(n, 5) | PLACE(n, 6) | PLACE(n, 7))
#define PLACES_4(n) PLACES(n), PLACES(n + 1), PLACES(n + 2), PLACES(n + 3)
#define PLACES_16(n) PLACES_4(n), PLACES_4(n + 4), PLACES_4(n + 8), PLACES_4(n + 12)
#define PLACES_64(n) PLACES_16(n), PLACES_16(n + 16), PLACES_16(n + 32), PLACES_16(n + 48)
static const uint64_t places[256] = {PLACES_64(0u), PLACES_64(64u), PLACES_64(128u), PLACES_64(192u)};

/* Writes the entries first ^ (base + b) of each of eight bytes b; base is a multiple of 8
 * and they are below that. (Asked to widen bytes, gcc takes four instructions for what is
 * one: each with a zero.) */
BH_INLINE void put_eight(bhi_index_t *to, uint64_t bytes, uint8_t base, bhi_index_t first)
{
#if BH_OS_PAGE_SHIFT <= 15 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    typedef uint64_t words_t __attribute__((vector_size(16)));
    typedef uint8_t bytes_t __attribute__((vector_size(16)));
    typedef uint16_t entries_t __attribute__((vector_size(16)));
    bytes_t places_of = (bytes_t)(words_t){bytes} | base;
    entries_t entries = (entries_t)__builtin_shufflevector(places_of, (bytes_t){0}, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23) ^
                        (first - (entries_t){0});
    memcpy(to, &entries, sizeof entries);
#else
    for (unsigned k = 0; k < 8; k++)
        to[k] = (bhi_index_t)(first ^ (base + (bytes >> 8 * k & 0xff)));
#endif
}

/* By bytes of the set, without a branch: how many bits are set is nothing that a
 * processor can foretell. */
static bhi_index_t *by_bytes(bhi_index_t *end, uint64_t set, bhi_index_t first)
{
    uint64_t sums = bhi_bit_sums(set), before = sums << 8;
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        put_eight(end + (before >> 8 * i & 0xff), places[set >> 8 * i & 0xff], (uint8_t)(8 * i), first);
    return end + (sums >> 56);
}

typedef bhi_index_t *spread_t(bhi_index_t *end, uint64_t set, bhi_index_t first);
typedef uint64_t free_t(const bhi_map_block_t *map, uint32_t word);

/* Compiled once for each way of a word, which is part of the loop then. */
BH_INLINE bhi_index_t *of_words(bhi_index_t *end, const bhi_index_t *enough, const bhi_spread_of_t *of, free_t *free, spread_t *one)
{
    for (uint32_t w = of->from, i = 0; i < of->words && end < enough; i++) {
        bool last = w + 1 == of->words;
        end = one(end, free(of->map, w) & (last ? of->of_last : ~(uint64_t)0), (bhi_index_t)(w * 64 ^ of->key));
        w = last ? 0 : w + 1;
    }
    return end;
}

static BH_NOINLINE bhi_index_t *of_words_by_bytes(bhi_index_t *end, const bhi_index_t *enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, bhi_map_free, by_bytes);
}

/* Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2: VPCOMPRESSW. */
#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
#define COMPRESSES __attribute__((target("avx512bw,avx512vbmi2,popcnt")))

COMPRESSES static bhi_index_t *by_halves(bhi_index_t *end, uint64_t set, bhi_index_t first)
{
    static const bhi_index_t numbers[32] BH_ALIGNED(64) = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                           16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    __m512i low = _mm512_xor_si512(_mm512_load_si512(numbers), _mm512_set1_epi16((short)first));
    __m512i high = _mm512_xor_si512(low, _mm512_set1_epi16(32));
    __mmask32 of_low = (__mmask32)set, of_high = (__mmask32)(set >> 32);
    _mm512_storeu_si512(end, _mm512_maskz_compress_epi16(of_low, low));
    end += __builtin_popcount(of_low);
    _mm512_storeu_si512(end, _mm512_maskz_compress_epi16(of_high, high));
    return end + __builtin_popcount(of_high);
}

COMPRESSES static uint64_t free_by_halves(const bhi_map_block_t *map, uint32_t word)
{
    const __m512i *pairs = (const __m512i *)(const void *)(map + (size_t)word * 64);
    __m512i low = _mm512_loadu_si512(pairs), high = _mm512_loadu_si512(pairs + 1);
    return (uint64_t)_mm512_testn_epi16_mask(low, low) | (uint64_t)_mm512_testn_epi16_mask(high, high) << 32;
}

COMPRESSES static BH_NOINLINE bhi_index_t *of_words_by_halves(bhi_index_t *end, const bhi_index_t *enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, free_by_halves, by_halves);
}
#endif

bhi_index_t *bhi_spread(bhi_index_t *end, uint64_t set, bhi_index_t first)
{
#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
    if (bh_likely(bhi_process.has_compress))
        return by_halves(end, set, first);
#endif
    return by_bytes(end, set, first);
}

bhi_index_t *bhi_spread_free(bhi_index_t *end, const bhi_index_t *enough, const bhi_spread_of_t *of)
{
#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
    if (bh_likely(bhi_process.has_compress))
        return of_words_by_halves(end, enough, of);
#endif
    return of_words_by_bytes(end, enough, of);
}

bool bhi_spread_knows_compress(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512vbmi2") != 0;
#else
    return false;
#endif
}
