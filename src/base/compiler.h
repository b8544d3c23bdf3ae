/* Compiler vocabulary: branch hints, inlining, thread-local storage. */
#ifndef BH_BASE_COMPILER_H
#define BH_BASE_COMPILER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define bh_likely(x) __builtin_expect(!!(x), 1)
#define bh_unlikely(x) __builtin_expect(!!(x), 0)

#define BH_NOINLINE __attribute__((noinline))
#define BH_COLD __attribute__((noinline, cold))
#define BH_INLINE static inline __attribute__((always_inline))
/* A function for processors that have vectors of 32 bytes and count bits, where the build
 * does not ask for them: instructions are fewer, also with shorter ones. Nothing else may be inlined
 * there that asks for other instructions by name. */
#if defined(__x86_64__)
#define BH_WIDE __attribute__((target("avx2,popcnt")))
#else
#define BH_WIDE
#endif
/* For data that another file of the library defines: reached without a detour
 * through the table of addresses that a preloaded library could redirect. */
#define BH_HIDDEN __attribute__((visibility("hidden")))
#define BH_ALIGNED(n) __attribute__((aligned(n)))

/* What was loaded before is loaded anew after this: cheaper in a function without calls
 * than to keep it in a register that has to be saved. No instruction. */
static inline void bhi_forget_loads(void)
{
    __asm__ volatile("" ::: "memory");
}

/* The same of what was computed from x. */
static inline uint32_t bhi_forget_use(uint32_t x)
{
    __asm__("" : "+r"(x));
    return x;
}

/* In a loop that waits for another processor. */
static inline void bhi_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A word or two of initial-exec TLS (field notes 15): no call on access, also
 * from a library that is loaded late. */
#define BH_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BH_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define BH_SANITIZED 1
#endif
#endif
#ifndef BH_SANITIZED
#define BH_SANITIZED 0
#endif

#endif
