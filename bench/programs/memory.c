/* How much memory stays resident under loads that change: prints one line
 *
 *     LIVE RSS
 *
 * in KiB for each of many moments, for memory.py. LIVE is what the program has asked
 * for and not freed. The first argument names the load:
 *
 *   sizes   the live bytes stay the same, while the sizes of new blocks change from
 *           phase to phase: free memory of one size must serve another. One block in
 *           ten lives through several phases.
 *   shrink  many sessions, then all but a twentieth that began one after the other
 *           end, and a light load goes on in which memory can be returned.
 *   server  two threads with sessions that live for times with a heavy tail, half of
 *           them ended by the other thread, while the sizes that are usual drift: a
 *           server over days, in half a minute at scale 1. */
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

enum { KIB = 1024, PIECES = 16, LARGEST = 64 * KIB };

static atomic_llong live_bytes;

/* --------------------------------------------------------------------- moments */

/* The sum of the process's pages by a walk over them: statm may lag behind. Nothing
 * here allocates. */
static long long resident_kib(void)
{
    char text[2048];
    int file = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    bench_check(file >= 0, "open smaps_rollup");
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    bench_check(length > 0, "read smaps_rollup");
    text[length] = '\0';
    const char *rss = strstr(text, "\nRss:");
    bench_check(rss != NULL, "smaps_rollup has no Rss");
    return strtoll(rss + 5, NULL, 10);
}

static void report_moment(void)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%lld %lld\n", (long long)atomic_load(&live_bytes) / KIB, resident_kib());
    bench_check(write(STDOUT_FILENO, line, (size_t)length) == length, "write");
}

/* -------------------------------------------------------------------- sessions */

/* A connection of a server or the like: a few blocks that end together. */
struct session {
    struct session *next;
    uint32_t sizes[PIECES];
    unsigned char *blocks[PIECES];
};

static unsigned char *new_piece(uint32_t size)
{
    unsigned char *piece = bench_block(size, (unsigned char)size);
    memset(piece + 1, 1, size - 1);
    atomic_fetch_add_explicit(&live_bytes, size, memory_order_relaxed);
    return piece;
}

static void end_piece(unsigned char *piece, uint32_t size)
{
    bench_free(piece, (unsigned char)size);
    atomic_fetch_sub_explicit(&live_bytes, size, memory_order_relaxed);
}

/* Half of the sizes are around `usual`, most of the others below it, few far above. */
static uint32_t pick_size(struct bench_rng *rng, uint32_t usual)
{
    uint32_t kind = bench_below(rng, 100);
    if (kind < 50)
        return bench_between(rng, usual - usual / 4, usual + usual / 4);
    return kind < 98 ? bench_between(rng, 8, usual) : bench_between(rng, 8, LARGEST);
}

static struct session *new_session(struct bench_rng *rng, uint32_t usual)
{
    struct session *session = malloc(sizeof *session);
    bench_check(session != NULL, "malloc");
    atomic_fetch_add_explicit(&live_bytes, (long long)sizeof *session, memory_order_relaxed);
    for (unsigned i = 0; i < PIECES; i++) {
        session->sizes[i] = pick_size(rng, usual);
        session->blocks[i] = new_piece(session->sizes[i]);
    }
    return session;
}

static void end_session(struct session *session)
{
    for (unsigned i = 0; i < PIECES; i++)
        end_piece(session->blocks[i], session->sizes[i]);
    free(session);
    atomic_fetch_sub_explicit(&live_bytes, (long long)sizeof *session, memory_order_relaxed);
}

/* ----------------------------------------------------------------------- sizes */

enum { LIVE_BYTES = 48 << 20, MAX_PIECES = 1 << 20, PHASES = 24, REPORTS = 6, LIVES_LONG = 10 };

static struct piece {
    unsigned char *block;
    uint32_t size;
    uint32_t phases; /* that it has still to live */
} pieces[MAX_PIECES];

static uint32_t piece_count;

/* Takes the place of the last, and the last that of a random one. */
static void end_one(struct bench_rng *rng)
{
    uint32_t at = bench_below(rng, piece_count);
    if (pieces[at].phases > 0)
        at = bench_below(rng, piece_count);
    end_piece(pieces[at].block, pieces[at].size);
    pieces[at] = pieces[--piece_count];
}

static void change_sizes(uint64_t rounds)
{
    static const uint32_t usual[] = {72, 400, 100, 3000, 150, 12000, 1000, 80};
    struct bench_rng rng = bench_rng_for(0);
    for (uint64_t phase = 0; phase < rounds * PHASES; phase++) {
        uint32_t size = usual[phase % (sizeof usual / sizeof usual[0])];
        for (uint32_t i = 0; i < piece_count; i++)
            pieces[i].phases -= pieces[i].phases > 0;
        for (unsigned part = 0; part < REPORTS; part++) {
            long long left = LIVE_BYTES / REPORTS;
            while (left > 0) {
                while (piece_count == MAX_PIECES || (piece_count > 0 && atomic_load(&live_bytes) > LIVE_BYTES))
                    end_one(&rng);
                struct piece *piece = &pieces[piece_count++];
                piece->size = bench_between(&rng, size - size / 3, size + size / 3);
                piece->phases = bench_below(&rng, LIVES_LONG) == 0 ? bench_between(&rng, 2, 6) : 0;
                piece->block = new_piece(piece->size);
                left -= piece->size;
            }
            report_moment();
        }
    }
    while (piece_count > 0)
        end_one(&rng);
}

/* ---------------------------------------------------------------------- shrink */

enum { SESSIONS = 12000, STAY = SESSIONS / 20, USUAL = 300, LIGHT_REPORTS = 60, LIGHT_WORK = 2000 };

static void wait_a_little(void)
{
    const struct timespec pause = {0, 50000000};
    nanosleep(&pause, NULL);
}

static void shrink(uint64_t rounds)
{
    static struct session *sessions[SESSIONS];
    struct bench_rng rng = bench_rng_for(0);
    for (uint64_t round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < SESSIONS; i++)
            if (sessions[i] == NULL)
                sessions[i] = new_session(&rng, USUAL);
        report_moment();
        uint32_t first = bench_below(&rng, SESSIONS - STAY);
        for (unsigned i = 0; i < SESSIONS; i++) {
            if (i >= first && i < first + STAY)
                continue;
            end_session(sessions[i]);
            sessions[i] = NULL;
        }
        /* Allocators look at what is due when they are called. */
        for (unsigned i = 0; i < LIGHT_REPORTS; i++) {
            for (unsigned k = 0; k < LIGHT_WORK; k++) {
                uint32_t size = pick_size(&rng, USUAL);
                bench_free(bench_block(size, (unsigned char)size), (unsigned char)size);
            }
            wait_a_little();
            report_moment();
        }
    }
    for (unsigned i = 0; i < SESSIONS; i++)
        if (sessions[i] != NULL)
            end_session(sessions[i]);
}

/* ---------------------------------------------------------------------- server */

enum { THREADS = 2, TABLE = 4096, AGES = 1 << 15, MIN_AGE = 600, HANDED = 256, MOMENTS = 360, DAYS = 8, PER_MOMENT = 14000 };

struct server {
    struct bench_rng rng;
    uint64_t sessions;
    uint64_t moments; /* 0 in the thread that does not report */
    struct session *dying[AGES];
};

static uint32_t ages[TABLE];
static _Atomic(struct session *) handed[HANDED];

static void end_list(struct session *session)
{
    while (session != NULL) {
        struct session *next = session->next;
        end_session(session);
        session = next;
    }
}

/* What is usual moves between 64 and 576 bytes and back, DAYS times. */
static uint32_t usual_at(uint64_t now, uint64_t end)
{
    uint64_t part = now * DAYS % end * 1024 / end;
    return 64 + (uint32_t)(part < 512 ? part : 1023 - part);
}

static void *serve(void *argument)
{
    struct server *s = argument;
    for (uint64_t now = 0; now < s->sessions; now++) {
        end_list(s->dying[now % AGES]);
        s->dying[now % AGES] = NULL;
        struct session *session = new_session(&s->rng, usual_at(now, s->sessions));
        session->next = NULL;
        if (now % 2 == 0)
            session = atomic_exchange(&handed[bench_below(&s->rng, HANDED)], session);
        if (session != NULL) {
            struct session **list = &s->dying[(now + ages[bench_below(&s->rng, TABLE)]) % AGES];
            session->next = *list;
            *list = session;
        }
        if (s->moments != 0 && (now + 1) * s->moments / s->sessions != now * s->moments / s->sessions)
            report_moment();
    }
    for (unsigned i = 0; i < AGES; i++)
        end_list(s->dying[i]);
    return NULL;
}

static void run_server(uint64_t moments)
{
    static struct server servers[THREADS];
    struct bench_rng rng = bench_rng_for(1000);
    /* As frequent as the inverse of their square. */
    for (unsigned i = 0; i < TABLE; i++) {
        double age = MIN_AGE / (((double)bench_next(&rng) + 1) / 4294967296.0);
        ages[i] = age < AGES - 1 ? (uint32_t)age : AGES - 1;
    }
    for (unsigned t = 0; t < THREADS; t++) {
        servers[t].rng = bench_rng_for(t);
        servers[t].sessions = moments * PER_MOMENT;
        servers[t].moments = t == 0 ? moments : 0;
    }
    bench_run_threads(THREADS, serve, servers, sizeof servers[0]);
    for (unsigned i = 0; i < HANDED; i++)
        end_list(atomic_load(&handed[i]));
}

/* ------------------------------------------------------------------------ main */

static const struct load {
    const char *name;
    void (*run)(uint64_t work);
    uint64_t work;
} loads[] = {{"sizes", change_sizes, 1}, {"shrink", shrink, 1}, {"server", run_server, MOMENTS}};

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        if (argc >= 2 && strcmp(argv[1], loads[i].name) == 0) {
            loads[i].run(bench_work(argc - 1, argv + 1, loads[i].work));
            bench_check(atomic_load(&live_bytes) == 0, "the sums of sizes do not agree");
            return 0;
        }
    }
    fprintf(stderr, "usage: memory sizes|shrink|server [FACTOR]\n");
    return 2;
}
