#include "rt/order.h"

#include <string.h>

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

void bhi_order_riffle(bhi_order_t *order, const uint8_t coins[BH_ORDER_COINS])
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
