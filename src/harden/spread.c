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
typedef uint64_t which_t(const bhi_spread_of_t *of, uint32_t word);

/* Compiled once for each way of a word, which is part of the loop then. */
BH_INLINE bhi_index_t *of_words(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of, which_t *which, spread_t *one)
{
    const bhi_index_t *goal = end + enough;
    for (uint32_t w = of->from, i = 0; i < of->words && end < goal; i++) {
        bool last = w + 1 == of->words;
        end = one(end, which(of, w) & (last ? of->of_last : ~(uint64_t)0), (bhi_index_t)(w * 64 ^ of->key));
        w = last ? 0 : w + 1;
    }
    return end;
}

BH_INLINE uint32_t count_words(uint32_t enough, const bhi_spread_of_t *of, which_t *which)
{
    uint32_t n = 0;
    for (uint32_t w = 0; w < of->words && n < enough; w++)
        n += bhi_bit_count(which(of, w) & (w + 1 == of->words ? of->of_last : ~(uint64_t)0));
    return n;
}

BH_INLINE uint64_t free_of(const bhi_spread_of_t *of, uint32_t word)
{
    return bhi_map_free(of->map, word);
}

BH_INLINE uint64_t old_of(const bhi_spread_of_t *of, uint32_t word)
{
    return bhi_map_old(of->map, word, of->young);
}

static BH_NOINLINE bhi_index_t *of_words_by_bytes(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, free_of, by_bytes);
}

static BH_NOINLINE bhi_index_t *old_by_bytes(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, old_of, by_bytes);
}

static BH_NOINLINE uint32_t count_old(uint32_t enough, const bhi_spread_of_t *of)
{
    return count_words(enough, of, old_of);
}

/* The same for processors that widen bytes as they load them, and count bits. */
#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
#define WIDE_TOO 1

BH_WIDE BH_INLINE bhi_index_t *by_bytes_wide(bhi_index_t *end, uint64_t set, bhi_index_t first)
{
    __m128i firsts = _mm_set1_epi16((short)first); /* of the lowest byte left */
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
        uint64_t byte = set & 0xff;
        __m128i entries = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i *)(const void *)&places[byte]));
        _mm_storeu_si128((__m128i *)(void *)end, _mm_xor_si128(entries, firsts));
        end += __builtin_popcountll(byte);
        firsts = _mm_xor_si128(firsts, _mm_set1_epi16((short)(8 * (i ^ (i + 1)))));
        set >>= 8;
        __asm__("" : "+x"(firsts), "+r"(set)); /* step by step: three constants, not seven; no copy of the set for each */
    }
    return end;
}

/* Sixteen blocks each: as a set, those whose pair is not 0. */
BH_WIDE BH_INLINE uint64_t set_of(__m256i a, __m256i b, __m256i c, __m256i d)
{
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(c, d), 0xd8));
    return (uint64_t)high << 32 | low;
}

BH_WIDE BH_INLINE __m256i pairs_of(const bhi_spread_of_t *of, uint32_t word, unsigned i)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)(of->map + (size_t)word * 64) + i);
}

BH_WIDE BH_INLINE __m256i free_pairs(__m256i pairs)
{
    return _mm256_cmpeq_epi16(pairs, _mm256_setzero_si256());
}

BH_WIDE BH_INLINE uint64_t free_wide(const bhi_spread_of_t *of, uint32_t word)
{
    return set_of(free_pairs(pairs_of(of, word, 0)), free_pairs(pairs_of(of, word, 1)), free_pairs(pairs_of(of, word, 2)), free_pairs(pairs_of(of, word, 3)));
}

BH_WIDE BH_INLINE __m256i old_pairs(__m256i pairs, __m256i first, __m256i second)
{
    __m256i young = _mm256_or_si256(_mm256_cmpeq_epi16(pairs, first), _mm256_cmpeq_epi16(pairs, second));
    return _mm256_andnot_si256(young, free_pairs(_mm256_and_si256(pairs, _mm256_set1_epi16((short)BHI_MAP_NOT_MARK))));
}

BH_WIDE BH_INLINE uint64_t old_wide(const bhi_spread_of_t *of, uint32_t word)
{
    __m256i first = _mm256_set1_epi16(of->young[0]), second = _mm256_set1_epi16(of->young[1]);
    return set_of(old_pairs(pairs_of(of, word, 0), first, second), old_pairs(pairs_of(of, word, 1), first, second),
                  old_pairs(pairs_of(of, word, 2), first, second), old_pairs(pairs_of(of, word, 3), first, second));
}

BH_WIDE static BH_NOINLINE bhi_index_t *spread_wide(bhi_index_t *end, uint64_t set, bhi_index_t first)
{
    return by_bytes_wide(end, set, first);
}

BH_WIDE static BH_NOINLINE bhi_index_t *of_words_wide(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, free_wide, by_bytes_wide);
}

BH_WIDE static BH_NOINLINE bhi_index_t *old_of_words_wide(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
    return of_words(end, enough, of, old_wide, by_bytes_wide);
}

BH_WIDE static BH_NOINLINE uint32_t count_old_wide(uint32_t enough, const bhi_spread_of_t *of)
{
    return count_words(enough, of, old_wide);
}
#else
#define WIDE_TOO 0
#endif

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

COMPRESSES static uint64_t free_by_halves(const bhi_spread_of_t *of, uint32_t word)
{
    const __m512i *pairs = (const __m512i *)(const void *)(of->map + (size_t)word * 64);
    __m512i low = _mm512_loadu_si512(pairs), high = _mm512_loadu_si512(pairs + 1);
    return (uint64_t)_mm512_testn_epi16_mask(low, low) | (uint64_t)_mm512_testn_epi16_mask(high, high) << 32;
}

COMPRESSES static BH_NOINLINE bhi_index_t *of_words_by_halves(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
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
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2))
        return spread_wide(end, set, first);
#endif
    return by_bytes(end, set, first);
}

bhi_index_t *bhi_spread_free(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
    if (bh_likely(bhi_process.has_compress))
        return of_words_by_halves(end, enough, of);
#endif
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2) && !BH_SANITIZED)
        return of_words_wide(end, enough, of);
#endif
    return of_words_by_bytes(end, enough, of);
}

bhi_index_t *bhi_spread_old(bhi_index_t *end, uint32_t enough, const bhi_spread_of_t *of)
{
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2) && !BH_SANITIZED)
        return old_of_words_wide(end, enough, of);
#endif
    return old_by_bytes(end, enough, of);
}

uint32_t bhi_spread_count_old(uint32_t enough, const bhi_spread_of_t *of)
{
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2) && !BH_SANITIZED)
        return count_old_wide(enough, of);
#endif
    return count_old(enough, of);
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
