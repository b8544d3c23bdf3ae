/* A C program that leaves blocks live and leaks none: what libc keeps to itself, and
 * what its own data, threads and mappings lead to. Prints to standard output only. */
#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct node {
    struct node *next;
    char *text;
};
static struct node *list;
static void **mapped;
static pthread_key_t key;
static _Thread_local char *volatile own;

static void *hold(void *arg)
{
    pthread_setspecific(key, malloc(50));
    own = strdup("thread-local");
    printf("%s %s\n", own, (const char *)arg);
    char *volatile here = strdup("on the stack");
    for (;;)
        pause();
    return here;
}

static void *end(void *arg)
{
    pthread_setspecific(key, malloc(50));
    own = strdup("freed below");
    free(own);
    return arg;
}

int main(void)
{
    pthread_t t;
    void *library = dlopen("libm.so.6", RTLD_NOW);
    setlocale(LC_ALL, "C.UTF-8");
    tzset();
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    printf("%p %p %p\n", library, dlsym(library, "no such name"), (void *)fopen("/dev/null", "w"));
    printf("%s %p\n", dlerror(), (void *)getpwuid(0));
    setenv("SOME_VARIABLE", "some value", 1);
    for (int i = 0; i < 10000; i++) {
        struct node *node = malloc(sizeof *node);
        node->next = list;
        node->text = calloc(1, (size_t)i % 300 + 1);
        list = node;
    }
    mapped = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mapped[700000] = malloc(100);
    void **large = malloc(3 << 20);
    large[300000] = malloc(100);
    mapped[900000] = large;
    pthread_key_create(&key, free);
    if (pthread_create(&t, NULL, hold, strdup("an argument")) != 0 || pthread_create(&t, NULL, end, NULL) != 0)
        return 1;
    pthread_join(t, NULL);
    usleep(20000);
    return 0;
}
