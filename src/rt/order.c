#include "rt/order.h"

#include "rt/process.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef uint8_t bytes_t __attribute__((vector_size(16)));
typedef int8_t signed_t __attribute__((vector_size(16)));

/* The first quarter of the order is a, then b, c, d. A byte of coins whose highest bit is
 * set says that the pair at its place changes sides. Then the halves are laid into each
 * other. */
#define LOWER(x, y) __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define UPPER(x, y) __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

typedef struct quarters {
    bytes_t a, b, c, d;
} quarters_t;

BH_INLINE quarters_t round_of(quarters_t q, bytes_t coins_a, bytes_t coins_b)
{
    bytes_t swap_a = (q.a ^ q.c) & (bytes_t)((signed_t)coins_a < 0);
    bytes_t swap_b = (q.b ^ q.d) & (bytes_t)((signed_t)coins_b < 0);
    bytes_t a = q.a ^ swap_a, b = q.b ^ swap_b, c = q.c ^ swap_a, d = q.d ^ swap_b;
    return (quarters_t){LOWER(a, c), UPPER(a, c), LOWER(b, d), UPPER(b, d)};
}

BH_INLINE bytes_t load(const uint8_t *from)
{
    bytes_t v;
    memcpy(&v, from, sizeof v);
    return v;
}

static void riffle(bhi_order_t *order, const uint8_t coins[BH_ORDER_COINS])
{
    quarters_t q = {load(order->place), load(order->place + 16), load(order->place + 32), load(order->place + 48)};
    bytes_t coins_a = load(coins), coins_b = load(coins + 16);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        q = round_of(q, coins_a, coins_b);
        coins_a += coins_a;
        coins_b += coins_b;
    }
    coins_a = load(coins + 32); /* four bits of each byte for each half */
    coins_b = coins_a << 4;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        q = round_of(q, coins_a, coins_b);
        coins_a += coins_a;
        coins_b += coins_b;
    }
    memcpy(order->place, &q.a, sizeof q.a);
    memcpy(order->place + 16, &q.b, sizeof q.b);
    memcpy(order->place + 32, &q.c, sizeof q.c);
    memcpy(order->place + 48, &q.d, sizeof q.d);
}

static void apply(const bhi_order_t *order, const bhi_index_t *items, bhi_index_t *out)
{
#pragma GCC unroll 16
    for (uint64_t i = 0; i < BH_ORDER_PLACES; i++)
        out[i] = items[order->place[i]];
}

#if defined(__x86_64__) && BH_OS_PAGE_SHIFT <= 15
#define WIDE_TOO 1

/* The same in vectors of 32 bytes: the first half of the order, and the second. */
typedef struct halves {
    __m256i first, second;
} halves_t;

BH_WIDE BH_INLINE halves_t wide_round_of(halves_t h, __m256i coins)
{
    __m256i a_b = _mm256_blendv_epi8(h.first, h.second, coins), c_d = _mm256_blendv_epi8(h.second, h.first, coins);
    __m256i lower = _mm256_unpacklo_epi8(a_b, c_d), upper = _mm256_unpackhi_epi8(a_b, c_d); /* of each quarter */
    return (halves_t){_mm256_permute2x128_si256(lower, upper, 0x20), _mm256_permute2x128_si256(lower, upper, 0x31)};
}

BH_WIDE static void wide_riffle(bhi_order_t *order, const uint8_t coins[BH_ORDER_COINS])
{
    __m256i *places = (__m256i *)(void *)order->place;
    halves_t h = {_mm256_loadu_si256(places), _mm256_loadu_si256(places + 1)};
    __m256i now = _mm256_loadu_si256((const __m256i *)(const void *)coins);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        h = wide_round_of(h, now);
        now = _mm256_add_epi8(now, now);
    }
    now = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(coins + 32)));
    now = _mm256_sllv_epi64(now, _mm256_set_epi64x(4, 4, 0, 0)); /* what comes in from the byte below is not looked at */
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        h = wide_round_of(h, now);
        now = _mm256_add_epi8(now, now);
    }
    _mm256_storeu_si256(places, h.first);
    _mm256_storeu_si256(places + 1, h.second);
}

/* Sixteen bytes in both halves: PSHUFB looks up no more than that. */
BH_WIDE BH_INLINE __m256i table_of(__m256i bytes, int half)
{
    return half == 0 ? _mm256_permute2x128_si256(bytes, bytes, 0x00) : _mm256_permute2x128_si256(bytes, bytes, 0x11);
}

/* Lower or higher bytes of items[at] for 32 places: of each quarter of them those that lie
 * there, elsewhere 0. */
BH_WIDE BH_INLINE __m256i looked_up(const __m256i tables[4], const __m256i at[4])
{
    __m256i one = _mm256_or_si256(_mm256_shuffle_epi8(tables[0], at[0]), _mm256_shuffle_epi8(tables[1], at[1]));
    __m256i two = _mm256_or_si256(_mm256_shuffle_epi8(tables[2], at[2]), _mm256_shuffle_epi8(tables[3], at[3]));
    return _mm256_or_si256(one, two);
}

BH_WIDE static void wide_apply(const bhi_order_t *order, const bhi_index_t *items, bhi_index_t *out)
{
    __m256i low[4], high[4];
    const __m256i low_bytes = _mm256_set1_epi16(0xff), others = _mm256_set1_epi8(0x70);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m256i *from = (const __m256i *)(const void *)(items + 32 * i);
        __m256i a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1);
        __m256i lows = _mm256_packus_epi16(_mm256_and_si256(a, low_bytes), _mm256_and_si256(b, low_bytes));
        __m256i highs = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        lows = _mm256_permute4x64_epi64(lows, 0xd8);
        highs = _mm256_permute4x64_epi64(highs, 0xd8);
        low[2 * i] = table_of(lows, 0);
        low[2 * i + 1] = table_of(lows, 1);
        high[2 * i] = table_of(highs, 0);
        high[2 * i + 1] = table_of(highs, 1);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)(order->place + 32 * i)), of[4];
#pragma GCC unroll 4
        for (int quarter = 0; quarter < 4; quarter++) /* 16 and above become 0x80 and above, for which PSHUFB gives 0 */
            of[quarter] = _mm256_adds_epu8(_mm256_xor_si256(at, _mm256_set1_epi8((char)(16 * quarter))), others);
        __m256i lows = looked_up(low, of), highs = looked_up(high, of);
        __m256i even = _mm256_unpacklo_epi8(lows, highs), odd = _mm256_unpackhi_epi8(lows, highs);
        __m256i *to = (__m256i *)(void *)(out + 32 * i);
        _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
        _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
    }
}
#else
#define WIDE_TOO 0
#endif

void bhi_order_riffle(bhi_order_t *order, const uint8_t coins[BH_ORDER_COINS])
{
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2)) {
        wide_riffle(order, coins);
        return;
    }
#endif
    riffle(order, coins);
}

void bhi_order_apply(const bhi_order_t *order, const bhi_index_t *items, bhi_index_t *out)
{
#if WIDE_TOO
    if (bh_likely(bhi_process.has_avx2)) {
        wide_apply(order, items, out);
        return;
    }
#endif
    apply(order, items, out);
}
