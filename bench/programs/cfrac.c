/* After cfrac by Dave Barrett, as allocator benchmarks use it: factors numbers of
 * two primes by the continued fraction of their square root (Morrison and
 * Brillhart). Every result of an operation on big integers, of one to five limbs, is
 * a block of its own, dropped when the next is there. Two fifths of mimalloc's time
 * are calls for blocks of 8 to 28 bytes, two in each trial division. */
#include "common.h"

enum { PRIMES = 62, SPARE = 8, MAX_LIMBS = 5, PRIME_BITS = 30 };

/* Limbs from the lowest; the highest is not 0, and zero has none. Never changed. */
struct big {
    uint32_t length, check;
    uint32_t limbs[];
};

typedef struct big *big;

/* -------------------------------------------------------------- big integers */

static big make(const uint32_t *limbs, uint32_t length)
{
    while (length > 0 && limbs[length - 1] == 0)
        length--;
    bench_check(length <= MAX_LIMBS, "a number is too long");
    big number = malloc(sizeof *number + length * sizeof number->limbs[0]);
    bench_check(number != NULL, "malloc");
    number->length = length;
    number->check = ~length;
    memcpy(number->limbs, limbs, length * sizeof limbs[0]);
    return number;
}

static big make_u64(uint64_t value)
{
    return make((const uint32_t[]){(uint32_t)value, (uint32_t)(value >> 32)}, 2);
}

static void drop(big number)
{
    bench_check(number->check == ~number->length, "a number has changed");
    free(number);
}

/* The variable takes the new number in place of the one it has. */
static void set(big *variable, big number)
{
    drop(*variable);
    *variable = number;
}

static uint64_t low_u64(big a)
{
    return (a->length > 0 ? a->limbs[0] : 0) | (a->length > 1 ? (uint64_t)a->limbs[1] << 32 : 0);
}

static int compare(big a, big b)
{
    if (a->length != b->length)
        return a->length < b->length ? -1 : 1;
    for (uint32_t i = a->length; i-- > 0;)
        if (a->limbs[i] != b->limbs[i])
            return a->limbs[i] < b->limbs[i] ? -1 : 1;
    return 0;
}

static big add(big a, big b)
{
    uint32_t sum[MAX_LIMBS + 1];
    uint64_t carry = 0;
    uint32_t length = a->length > b->length ? a->length : b->length;
    for (uint32_t i = 0; i < length; i++) {
        carry += (i < a->length ? a->limbs[i] : 0);
        carry += (i < b->length ? b->limbs[i] : 0);
        sum[i] = (uint32_t)carry;
        carry >>= 32;
    }
    sum[length] = (uint32_t)carry;
    return make(sum, length + 1);
}

/* a - b; a is not below b. */
static big subtract(big a, big b)
{
    uint32_t rest[MAX_LIMBS];
    uint64_t borrow = 0;
    for (uint32_t i = 0; i < a->length; i++) {
        uint64_t limb = (uint64_t)a->limbs[i] - (i < b->length ? b->limbs[i] : 0) - borrow;
        rest[i] = (uint32_t)limb;
        borrow = limb >> 63;
    }
    bench_check(borrow == 0, "a difference below zero");
    return make(rest, a->length);
}

static big multiply(big a, big b)
{
    uint32_t product[2 * MAX_LIMBS] = {0};
    for (uint32_t i = 0; i < a->length; i++) {
        uint64_t carry = 0;
        for (uint32_t k = 0; k < b->length; k++) {
            carry += (uint64_t)a->limbs[i] * b->limbs[k] + product[i + k];
            product[i + k] = (uint32_t)carry;
            carry >>= 32;
        }
        product[i + b->length] = (uint32_t)carry;
    }
    return make(product, a->length + b->length);
}

static uint32_t divide_by_limb(big a, uint32_t limb, uint32_t *quotient)
{
    uint64_t rest = 0;
    for (uint32_t i = a->length; i-- > 0;) {
        rest = rest << 32 | a->limbs[i];
        quotient[i] = (uint32_t)(rest / limb);
        rest %= limb;
    }
    return (uint32_t)rest;
}

/* By single bits for divisors of more than one limb: they are few. */
static void divide_by_many(big a, big b, uint32_t *quotient, uint32_t *rest)
{
    for (uint32_t bit = a->length * 32; bit-- > 0;) {
        uint32_t in = a->limbs[bit / 32] >> bit % 32 & 1, above = 0;
        for (uint32_t i = 0; i < b->length + 1; i++) {
            uint32_t out = rest[i] >> 31;
            rest[i] = rest[i] << 1 | in;
            in = out;
        }
        for (uint32_t i = b->length + 1; i-- > 0 && above == 0;) {
            uint32_t limb = i < b->length ? b->limbs[i] : 0;
            above = rest[i] > limb ? 1 : rest[i] < limb ? 2 : 0;
        }
        if (above == 2)
            continue;
        uint64_t borrow = 0;
        for (uint32_t i = 0; i < b->length + 1; i++) {
            uint64_t limb = (uint64_t)rest[i] - (i < b->length ? b->limbs[i] : 0) - borrow;
            rest[i] = (uint32_t)limb;
            borrow = limb >> 63;
        }
        quotient[bit / 32] |= (uint32_t)1 << bit % 32;
    }
}

/* The quotient, and the rest in *rest, both new. */
static big divide(big a, big b, big *rest)
{
    uint32_t quotient[MAX_LIMBS] = {0}, left[MAX_LIMBS + 1] = {0};
    bench_check(b->length > 0, "a division by zero");
    if (b->length == 1)
        left[0] = divide_by_limb(a, b->limbs[0], quotient);
    else if (a->length <= 2 && b->length == 2)
        return *rest = make_u64(low_u64(a) % low_u64(b)), make_u64(low_u64(a) / low_u64(b));
    else
        divide_by_many(a, b, quotient, left);
    *rest = make(left, b->length);
    return make(quotient, a->length);
}

static big quotient_of(big a, big b)
{
    big rest, quotient = divide(a, b, &rest);
    drop(rest);
    return quotient;
}

static big rest_of(big a, big b)
{
    big rest;
    drop(divide(a, b, &rest));
    return rest;
}

static big multiply_modulo(big a, big b, big modulus)
{
    big product = multiply(a, b), rest = rest_of(product, modulus);
    drop(product);
    return rest;
}

static big common_divisor(big a, big b)
{
    a = make(a->limbs, a->length);
    b = make(b->limbs, b->length);
    while (b->length > 0) {
        big rest = rest_of(a, b);
        set(&a, b);
        b = rest;
    }
    drop(b);
    return a;
}

/* By Newton's method, from above. */
static big square_root(big n)
{
    big two = make_u64(2), root = make_u64(UINT64_C(1) << 40);
    for (;;) {
        big part = quotient_of(n, root), sum = add(root, part), next = quotient_of(sum, two);
        drop(part);
        drop(sum);
        if (compare(next, root) >= 0) {
            drop(next);
            drop(two);
            return root;
        }
        set(&root, next);
    }
}

/* ------------------------------------------------------------ native numbers */

static uint64_t power_modulo(uint64_t base, uint64_t exponent, uint64_t modulus)
{
    uint64_t power = 1;
    for (base %= modulus; exponent > 0; exponent >>= 1, base = base * base % modulus)
        if ((exponent & 1) != 0)
            power = power * base % modulus;
    return power;
}

/* Miller's test; these bases are enough below 2^32. */
static bool is_prime(uint64_t n)
{
    static const uint64_t bases[] = {2, 3, 5, 7};
    uint64_t odd = n - 1;
    while (odd % 2 == 0)
        odd /= 2;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t power = power_modulo(bases[i], odd, n);
        uint64_t exponent = odd;
        while (exponent != n - 1 && power != 1 && power != n - 1) {
            power = power * power % n;
            exponent *= 2;
        }
        if (power != n - 1 && exponent % 2 == 0)
            return false;
    }
    return true;
}

static uint64_t pick_prime(struct bench_rng *rng)
{
    uint64_t n = bench_between(rng, 1u << (PRIME_BITS - 1), (1u << PRIME_BITS) - 100000) | 1;
    while (!is_prime(n))
        n += 2;
    return n;
}

/* --------------------------------------------------------------- the method */

/* convergent^2 = the product of primes, with the exponents, modulo n. */
struct relation {
    big convergent;
    uint64_t odd;    /* which exponents are odd; bit 0 is the sign */
    uint64_t chosen; /* relations of which this is the product, low and high part */
    uint64_t chosen_high;
    uint8_t exponents[PRIMES + 1];
};

struct search {
    big n;
    big primes[PRIMES];
    struct relation relations[PRIMES + SPARE];
    unsigned found;
};

/* The primes that can divide a term: those modulo which n is a square. */
static void choose_primes(struct search *s, uint64_t n)
{
    unsigned have = 0;
    for (uint32_t p = 2; have < PRIMES; p++) {
        bool prime = true;
        for (uint32_t d = 2; d * d <= p && prime; d++)
            prime = p % d != 0;
        if (prime && (p == 2 || power_modulo(n % p, (p - 1) / 2, p) == 1))
            s->primes[have++] = make_u64(p);
    }
}

/* Keeps the relation if the term has no other primes. */
static void try_term(struct search *s, big term, big convergent, bool negative)
{
    struct relation *r = &s->relations[s->found];
    *r = (struct relation){.odd = negative, .exponents[0] = negative};
    big left = make(term->limbs, term->length);
    for (unsigned i = 0; i < PRIMES; i++) {
        for (;;) {
            big rest, quotient = divide(left, s->primes[i], &rest);
            bool divides = rest->length == 0;
            drop(rest);
            if (!divides) {
                drop(quotient);
                break;
            }
            set(&left, quotient);
            r->odd ^= (uint64_t)2 << i;
            r->exponents[i + 1]++;
        }
    }
    if (left->length == 1 && left->limbs[0] == 1) {
        r->convergent = make(convergent->limbs, convergent->length);
        s->found++;
    }
    drop(left);
}

/* Terms and convergents, until there are enough relations or the period ends. */
static void expand(struct search *s)
{
    big root = square_root(s->n);
    big p = make_u64(0), q = make_u64(1), a = make(root->limbs, root->length);
    big before = make_u64(1), now = make(root->limbs, root->length);
    for (bool negative = true; s->found < PRIMES + SPARE; negative = !negative) {
        big product = multiply(a, q);
        set(&p, subtract(product, p));
        set(&product, multiply(p, p));
        set(&product, subtract(s->n, product));
        set(&q, quotient_of(product, q));
        set(&product, add(root, p));
        set(&a, quotient_of(product, q));
        drop(product);
        if (q->length == 1 && q->limbs[0] == 1)
            break;
        try_term(s, q, now, negative);
        big next = multiply(a, now);
        set(&next, add(next, before));
        set(&next, rest_of(next, s->n));
        drop(before);
        before = now;
        now = next;
    }
    drop(root), drop(p), drop(q), drop(a), drop(before), drop(now);
}

/* x^2 = y^2 modulo n, from the chosen relations; the divisor of n this tells. */
static big divisor_from(struct search *s, const struct relation *r)
{
    unsigned exponents[PRIMES + 1] = {0};
    big x = make_u64(1), y = make_u64(1);
    for (unsigned k = 0; k < s->found; k++) {
        if (((k < 64 ? r->chosen >> k : r->chosen_high >> (k - 64)) & 1) == 0)
            continue;
        set(&x, multiply_modulo(x, s->relations[k].convergent, s->n));
        for (unsigned i = 0; i <= PRIMES; i++)
            exponents[i] += s->relations[k].exponents[i];
    }
    for (unsigned i = 1; i <= PRIMES; i++)
        for (unsigned e = 0; e < exponents[i]; e += 2)
            set(&y, multiply_modulo(y, s->primes[i - 1], s->n));
    big difference = compare(x, y) < 0 ? subtract(y, x) : subtract(x, y);
    big divisor = common_divisor(s->n, difference);
    drop(x), drop(y), drop(difference);
    return divisor;
}

/* Gauss: relations whose product has even exponents only. */
static bool solve(struct search *s, uint64_t one, uint64_t other)
{
    bool done = false;
    for (unsigned k = 0; k < s->found; k++) {
        s->relations[k].chosen = k < 64 ? UINT64_C(1) << k : 0;
        s->relations[k].chosen_high = k < 64 ? 0 : UINT64_C(1) << (k - 64);
    }
    for (unsigned k = 0; k < s->found && !done; k++) {
        const struct relation *pivot = &s->relations[k];
        if (pivot->odd == 0) {
            big divisor = divisor_from(s, pivot);
            done = low_u64(divisor) == one || low_u64(divisor) == other;
            drop(divisor);
            continue;
        }
        uint64_t bit = pivot->odd & -pivot->odd;
        for (unsigned m = k + 1; m < s->found; m++) {
            if ((s->relations[m].odd & bit) == 0)
                continue;
            s->relations[m].odd ^= pivot->odd;
            s->relations[m].chosen ^= pivot->chosen;
            s->relations[m].chosen_high ^= pivot->chosen_high;
        }
    }
    return done;
}

/* Whether a divisor was found; a short period is no error, but no result either. */
static bool factor(uint64_t one, uint64_t other)
{
    static struct search s;
    s.found = 0;
    s.n = make_u64(one * other);
    choose_primes(&s, one * other);
    expand(&s);
    bool done = solve(&s, one, other);
    for (unsigned i = 0; i < s.found; i++)
        drop(s.relations[i].convergent);
    for (unsigned i = 0; i < PRIMES; i++)
        drop(s.primes[i]);
    drop(s.n);
    return done;
}

int main(int argc, char **argv)
{
    struct bench_rng rng = bench_rng_for(0);
    uint64_t work = bench_work(argc, argv, 100), factored = 0;
    for (uint64_t i = 0; i < work; i++) {
        uint64_t one = pick_prime(&rng), other = pick_prime(&rng);
        factored += one != other && factor(one, other);
    }
    /* Each of eight dependencies or more fails with a chance of one half. */
    bench_check(factored * 10 >= work * 8 || work < 10, "too few numbers were factored");
    return 0;
}
