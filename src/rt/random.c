/* Random generators. One of two files that include sodium.h. */
#include "rt/random.h"

#include "base/checked.h"
#include "os/os.h"
#include "rt/process.h"

#include <sodium/crypto_stream_chacha20.h>
#include <string.h>

#define root (bhi_process.random_root)
/* Option seed: not 0, all streams follow from it and from the order of draws, and a
 * copy of the process goes on with its parent's: the same input, the same layout. */
#define seed (bhi_process.options.seed)

/* What sodium_init does for the cipher: choose its code for this processor. The
 * rest of it opens a random device of its own and ends the process where a sandbox
 * has none. Weak: without them the portable code serves. */
extern int _sodium_runtime_get_cpu_features(void) __attribute__((weak));
extern int _crypto_stream_chacha20_pick_best_implementation(void) __attribute__((weak));

static void stream(uint8_t *out, size_t size, const uint8_t key[32])
{
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES] = {0};
    crypto_stream_chacha20(out, size, nonce, key);
}

/* Next key and next buffer from the present key, which is then gone. */
static void refill(bhi_random_t *r)
{
    uint8_t out[sizeof r->key + sizeof r->buf];
    stream(out, sizeof out, r->key);
    memcpy(r->key, out, sizeof r->key);
    memcpy(r->buf, out + sizeof r->key, sizeof r->buf);
    r->at = 0;
    explicit_bzero(out, sizeof out);
}

/* Mixes fresh entropy into the key: the old key is kept in, so that a kernel
 * that refuses leaves the generator no weaker than it was. */
static void stir(bhi_random_t *r, const uint8_t fresh[32])
{
    uint8_t pad[32];
    for (size_t i = 0; i < sizeof pad; i++)
        r->key[i] ^= fresh[i];
    stream(pad, sizeof pad, r->key);
    memcpy(r->key, pad, sizeof pad);
    explicit_bzero(pad, sizeof pad);
    memset(r->buf, 0, sizeof r->buf);
    r->at = sizeof r->buf;
    r->bits = 0;
    r->has_order = false;
}

static uint64_t process_epoch(void)
{
    uint64_t epoch = atomic_load_explicit(&root->epoch, memory_order_relaxed);
    bool same = root->wiped_page_works ? atomic_load_explicit(root->alive, memory_order_relaxed) != 0
                                      : (uint32_t)(epoch >> 32) == (uint32_t)bhi_os_pid();
    if (bh_unlikely(!same)) {
        bhi_random_after_fork();
        epoch = atomic_load_explicit(&root->epoch, memory_order_relaxed);
    }
    return epoch;
}

static void new_epoch(void)
{
    uint64_t old = atomic_load_explicit(&root->epoch, memory_order_relaxed);
    uint64_t epoch = (uint64_t)(uint32_t)bhi_os_pid() << 32 | (uint32_t)((uint32_t)old + 1);
    atomic_store_explicit(root->alive, 1, memory_order_relaxed);
    atomic_store_explicit(&root->epoch, epoch, memory_order_relaxed);
}

bool bhi_random_init_root(bhi_random_root_t *fresh_root, const unsigned char *at_random)
{
    if (_sodium_runtime_get_cpu_features != NULL && _crypto_stream_chacha20_pick_best_implementation != NULL) {
        _sodium_runtime_get_cpu_features();
        _crypto_stream_chacha20_pick_best_implementation();
    }
    uint8_t fresh[32] = {0};
    if (seed != 0) {
        for (unsigned i = 0; i < 4; i++)
            fresh[i] = (uint8_t)(seed >> 8 * i);
    } else if (bhi_os_entropy(fresh, sizeof fresh) != 0) {
        if (at_random == NULL)
            return false;
        /* 128 bits that the kernel drew for this process; libc's own canary
         * uses them too, so they are only ever a key here, never output. */
        memset(fresh, 0, sizeof fresh);
        memcpy(fresh, at_random, 16);
    }
    memset(fresh_root, 0, sizeof *fresh_root);
    stir(&fresh_root->state, fresh);
    explicit_bzero(fresh, sizeof fresh);
    return true;
}

void bhi_random_place_root(bhi_random_root_t *to, bhi_random_root_t *from, uintptr_t wiped_page)
{
    memcpy(to, from, sizeof *to);
    explicit_bzero(from, sizeof *from);
    to->alive = (_Atomic(uint64_t) *)wiped_page;
    to->wiped_page_works = seed != 0 || bhi_os_wipe_on_fork(wiped_page, BH_OS_PAGE_SIZE) == 0;
    bhi_process.random_root = to;
    new_epoch();
}

void bhi_random_after_fork(void)
{
    if (seed != 0) {
        bhi_lock_reset(&root->lock);
        return;
    }
    uint8_t fresh[32];
    memset(fresh, 0, sizeof fresh);
    if (bhi_os_entropy(fresh, sizeof fresh) != 0) {
        /* A sandboxed child: its process id and time still part its stream from
         * its parent's and its siblings'. */
        uint64_t id = (uint64_t)bhi_os_pid(), now = bhi_os_now_ms();
        memcpy(fresh, &id, sizeof id);
        memcpy(fresh + 8, &now, sizeof now);
    }
    bhi_lock_reset(&root->lock);
    stir(&root->state, fresh);
    explicit_bzero(fresh, sizeof fresh);
    new_epoch();
}

static void take_bytes(bhi_random_t *r, void *out, size_t size)
{
    if (r->at + size > sizeof r->buf)
        refill(r);
    memcpy(out, r->buf + r->at, size);
    memset(r->buf + r->at, 0, size);
    r->at += (uint32_t)size;
}

void bhi_random_init(bhi_random_t *r)
{
    uint64_t epoch = process_epoch();
    uint8_t fresh[32];
    bhi_lock_take(&root->lock);
    take_bytes(&root->state, fresh, sizeof fresh);
    bhi_lock_give(&root->lock);
    stir(r, fresh);
    if (seed == 0 && bhi_os_entropy(fresh, sizeof fresh) == 0)
        stir(r, fresh);
    explicit_bzero(fresh, sizeof fresh);
    r->epoch = epoch;
}

/* What process_epoch finds out where nothing has happened. */
BH_INLINE bool is_of_this_epoch(const bhi_random_t *r)
{
    return root->wiped_page_works && atomic_load_explicit(root->alive, memory_order_relaxed) != 0 &&
           r->epoch == atomic_load_explicit(&root->epoch, memory_order_relaxed);
}

static BH_NOINLINE void catch_up(bhi_random_t *r)
{
    if (r->epoch != process_epoch())
        bhi_random_init(r);
}

/* In a copy of the process that made r: never goes on with its stream. */
BH_INLINE void follow_epoch(bhi_random_t *r)
{
    if (root != NULL && bh_unlikely(!is_of_this_epoch(r)))
        catch_up(r);
}

/* After follow_epoch. */
BH_INLINE uint64_t draw_u64(bhi_random_t *r)
{
    if (bh_unlikely(r->at + sizeof(uint64_t) > sizeof r->buf))
        refill(r);
    uint64_t out, none = 0;
    memcpy(&out, r->buf + r->at, sizeof out);
    memcpy(r->buf + r->at, &none, sizeof none);
    r->at += (uint32_t)sizeof out;
    return out;
}

uint64_t bhi_random_u64(bhi_random_t *r)
{
    follow_epoch(r);
    return draw_u64(r);
}

/* The same of four bytes. */
BH_INLINE uint32_t draw_u32(bhi_random_t *r)
{
    if (bh_unlikely(r->at + sizeof(uint32_t) > sizeof r->buf))
        refill(r);
    uint32_t out, none = 0;
    memcpy(&out, r->buf + r->at, sizeof out);
    memcpy(r->buf + r->at, &none, sizeof none);
    r->at += (uint32_t)sizeof out;
    return out;
}

/* After follow_epoch. */
static BH_COLD uint64_t draw_again(bhi_random_t *r, uint64_t m, uint32_t bound)
{
    uint32_t threshold = (uint32_t)(-bound) % bound;
    while ((uint32_t)m < threshold)
        m = (uint64_t)draw_u32(r) * bound;
    return m;
}

/* Lemire's multiply-shift with rejection (ACM TOMACS 29(1), 2019). */
uint32_t bhi_random_below(bhi_random_t *r, uint32_t bound)
{
    follow_epoch(r);
    uint64_t m = (uint64_t)draw_u32(r) * bound;
    if (bh_unlikely((uint32_t)m < bound))
        m = draw_again(r, m, bound);
    return (uint32_t)(m >> 32);
}

/* One draw serves several steps: the high halves of successive products are uniform
 * and independent unless the last low half is below 2^64 mod the product of the bounds;
 * then the steps are done again. (N. Brackett-Rozinsky, D. Lemire, "Batched ranged
 * random integer generation", 2024.) */
#define STEPS 8u /* of bounds below 2^7: the product stays below 2^56 */

/* Numbers of items: as operands of a multiplication they need no register. */
#define FROM(n) (n), (n) + 1, (n) + 2, (n) + 3, (n) + 4, (n) + 5, (n) + 6, (n) + 7
static const uint64_t counts[BH_CHOOSE_MOST + 1] = {FROM(0),  FROM(8),  FROM(16), FROM(24), FROM(32), FROM(40),  FROM(48),  FROM(56),
                                                    FROM(64), FROM(72), FROM(80), FROM(88), FROM(96), FROM(104), FROM(112), FROM(120)};

/* Takes any of *n items out, with the same probability; the last one fills its place. */
BH_INLINE uint64_t take_one(bhi_index_t *items, const uint64_t *n, const bhi_index_t *last, uint64_t draw, bhi_index_t *out)
{
    uint64_t rest, taken = bhi_mul_wide_by(draw, n, &rest);
    *out = items[taken];
    items[taken] = *last;
    return rest;
}

/* Whether the steps from n items on have to be done again. If so, what they took out
 * is with the others again. */
static BH_COLD bool is_biased(uint64_t rest, bhi_index_t *items, uint32_t n, const bhi_index_t *out, uint32_t steps)
{
    uint64_t product = 1;
    for (uint32_t i = 0; i < steps; i++)
        product *= n - i;
    if (rest >= (0 - product) % product)
        return false;
    for (uint32_t i = 0; i < steps; i++)
        items[n - 1 - i] = out[i];
    return true;
}

/* After follow_epoch. The shuffle of Fisher and Yates. */
static void take_out(bhi_random_t *r, bhi_index_t *items, uint32_t n, uint32_t some, bhi_index_t *out)
{
    const uint64_t *number = &counts[n];
    while (some >= STEPS) {
        uint64_t rest = draw_u64(r);
        const bhi_index_t *end = &items[n];
        __asm__("" : "+r"(number), "+r"(end)); /* each a register of its own, not items + n */
#pragma GCC unroll 8
        for (int i = 0; i < (int)STEPS; i++)
            rest = take_one(items, number - i, end - 1 - i, rest, &out[i]);
        if (bh_unlikely(rest >> 7 * STEPS == 0) && is_biased(rest, items, n, out, STEPS))
            continue;
        out += STEPS;
        number -= STEPS;
        n -= STEPS;
        some -= STEPS;
    }
    while (some > 0) {
        uint64_t rest = draw_u64(r);
        for (uint32_t i = 0; i < some; i++)
            rest = take_one(items, &counts[n - i], &items[n - 1 - i], rest, &out[i]);
        if (bh_likely(rest >> 7 * STEPS != 0) || !is_biased(rest, items, n, out, some))
            break;
    }
}

/* After follow_epoch. The first order, of which those after it are made. */
static BH_COLD void draw_order(bhi_random_t *r)
{
    bhi_index_t numbers[BH_ORDER_PLACES], places[BH_ORDER_PLACES];
    for (uint32_t i = 0; i < BH_ORDER_PLACES; i++)
        numbers[i] = (bhi_index_t)i;
    take_out(r, numbers, BH_ORDER_PLACES, BH_ORDER_PLACES, places);
    for (uint32_t i = 0; i < BH_ORDER_PLACES; i++)
        r->order.place[i] = (uint8_t)places[i];
    r->has_order = true;
}

/* After follow_epoch. Puts 64 items into `out`, in half the time of taking each out by itself,
 * where each step waits for the one before. The riffle comes last, for the next call: the
 * items need not wait for it. */
static void arrange(bhi_random_t *r, const bhi_index_t *items, bhi_index_t *out)
{
    if (bh_unlikely(!r->has_order))
        draw_order(r);
    bhi_order_apply(&r->order, items, out);
    if (bh_unlikely(r->at + BH_ORDER_COINS > sizeof r->buf))
        refill(r);
    bhi_order_riffle(&r->order, r->buf + r->at);
    memset(r->buf + r->at, 0, BH_ORDER_COINS);
    r->at += BH_ORDER_COINS;
}

void bhi_random_choose(bhi_random_t *r, bhi_index_t *items, uint32_t n, uint32_t some, bhi_index_t *out)
{
    follow_epoch(r);
    if (n == BH_ORDER_PLACES && some == BH_ORDER_PLACES)
        arrange(r, items, out);
    else
        take_out(r, items, n, some, out);
}

/* The `n` lowest bits. The highest set bit is no random one: it marks how many
 * there are. */
static inline uint32_t shift_out(bhi_random_t *r, unsigned n)
{
    uint32_t bits = r->bits;
    r->bits = bits >> n;
    return bits & (((uint32_t)1 << n) - 1);
}

static BH_NOINLINE uint32_t bits_anew(bhi_random_t *r, unsigned n)
{
    follow_epoch(r);
    if (r->bits >> n == 0) {
        take_bytes(r, &r->bits, sizeof r->bits);
        r->bits |= (uint32_t)1 << 31;
    }
    return shift_out(r, n);
}

uint32_t bhi_random_bits(bhi_random_t *r, unsigned n)
{
    bool follows = root == NULL || is_of_this_epoch(r);
    if (bh_unlikely(!follows || r->bits >> n == 0))
        return bits_anew(r, n);
    return shift_out(r, n);
}
