/* Prints "TARGET INSTRUCTION BYTE" for each instruction of each target: seeds.py and the
 * mutator's tests build programs of these. */
#include "program.h"

#include <stdio.h>

int main(void)
{
    for (unsigned target = 0; target < TARGET_PROGRAMS; target++) {
        for (unsigned op = 0; op < OPS; op++) {
            int byte = program_byte((target_t)target, (op_t)op);
            if (byte >= 0)
                printf("%s %s %d\n", program_target_name((target_t)target), program_op_name((op_t)op), byte);
        }
    }
    return 0;
}
