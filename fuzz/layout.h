/* An input has to run the same in each process. What a run asks of the kernel, a huge
 * block say, depends on which addresses are in use, and so on where program, libraries and
 * stack lie: on the layout of the process, which is random but for what this does. */
#ifndef BH_FUZZ_LAYOUT_H
#define BH_FUZZ_LAYOUT_H

/* First thing in main, with its arguments: starts the program anew with the layout that it
 * always has. Returns where it has that already, and where the kernel or a sandbox refuses. */
void layout_fix(char **argv);

#endif
