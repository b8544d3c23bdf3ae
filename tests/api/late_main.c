/* A C program. Its C++ library arrives with a plugin, visible to that plugin
 * only, when Bulkhead's weak references to it have long been bound to nothing.
 * usage: late_main PLUGIN */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (dlsym(RTLD_DEFAULT, "__cxa_throw") != NULL) {
        fputs("late_main: a C++ library is there from the start\n", stderr);
        return 1;
    }
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        fprintf(stderr, "late_main: %s\n", dlerror());
        return 1;
    }
    int (*run)(void) = (int (*)(void))dlsym(plugin, "run_plugin");
    int result = run != NULL ? run() : 1;
    dlclose(plugin);
    return result;
}
