/* Included before each source of the allocator: its calls of the kernel are counted. */
#ifndef BENCH_LINES_KERNEL_H
#define BENCH_LINES_KERNEL_H

#include "os/syscall.h"

void machine_kernel_call(void);

#define bhi_syscall6(...) (machine_kernel_call(), bhi_syscall6(__VA_ARGS__))

#endif
