/* The only program of a small test VM: /init, linked statically.
 *
 * It writes blocks of 8 KiB to /dev/vda with O_DIRECT. Each says which block it is, which write of the run it came from
 * and under which seed, and ends in a checksum over all of it. A table in memory holds what was acknowledged last for
 * every block, so that after a move one read of the whole disk tells whether a write was lost, came too late or
 * landed elsewhere.
 *
 * ttyS0  the kernel's log, and in it a tick each 5 ms: the byte 1 if a write was acknowledged since the last one,
 *        2 if none was. Whoever reads them has the clock: that of a stopped VM stands still.
 * ttyS1  commands, one to a line; each is answered by one line, "ok ..." or "error ...":
 *          info                       "ok blocks N seq N errors N worst N": the worst write in microseconds
 *          write RATE SPAN JOBS       keep writing: RATE requests a second in all (0 for none, -1 for as many as can
 *                                     be), of SPAN blocks each, by JOBS threads
 *          region FIRST COUNT         where writes go from now on
 *          seed N                     what the contents are made from, from now on
 *          quiesce                    stop writing, wait for what is under way, flush
 *          verify                     the same, then read all and compare: "ok good N empty N bad N first N"; go on
 *          adopt                      take the blocks that are on the disk into the table, for a second boot
 *          table                      "ok SEQ*COUNT SEQ*COUNT ...", for all blocks in order
 *          trim FIRST COUNT           BLKDISCARD, after which these blocks must read as zeros
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 8192, MAX_JOBS = 8, MAX_SPAN = 64, PIECE = 64 };

#define MAGIC 0x2121746977646f67ull /* "godwit!!" */

struct block {
    uint64_t magic, index, seq, seed;
    uint32_t checksum, zero; /* CRC-32 of all 8 KiB with this field 0 */
    uint64_t words[(BLOCK - 40) / 8];
};
_Static_assert(sizeof(struct block) == BLOCK, "a block is 8 KiB");

static int disk = -1, commands = -1;
static uint64_t blocks;
static uint64_t *table; /* seq of the last acknowledged write of each block, 0 for none */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

/* All of these under the lock. */
static long rate, span = 1, jobs = 1;
static uint64_t first_block, block_count, seed = 1, next_seq = 1, errors, worst_us;
static int busy, held;

static volatile uint64_t acknowledged; /* only ever raised; read by the ticker */

static uint32_t crc_table[8][256];

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            crc_table[t][i] = crc_table[0][crc_table[t - 1][i] & 255] ^ (crc_table[t - 1][i] >> 8);
}

static uint32_t crc32(const void *data) {
    const uint64_t *words = data;
    uint32_t c = ~0u;
    for (int i = 0; i < BLOCK / 8; i++) {
        uint64_t w = words[i] ^ c;
        c = crc_table[7][w & 255] ^ crc_table[6][w >> 8 & 255] ^ crc_table[5][w >> 16 & 255] ^
            crc_table[4][w >> 24 & 255] ^ crc_table[3][w >> 32 & 255] ^ crc_table[2][w >> 40 & 255] ^
            crc_table[1][w >> 48 & 255] ^ crc_table[0][w >> 56];
    }
    return ~c;
}

static uint64_t mix(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void fill(struct block *b, uint64_t index, uint64_t seq, uint64_t from) {
    uint64_t state = from * 0x2545f4914f6cdd1dull ^ index << 24 ^ seq;
    *b = (struct block){.magic = MAGIC, .index = index, .seq = seq, .seed = from};
    for (size_t i = 0; i < sizeof b->words / 8; i++) b->words[i] = mix(&state);
    b->checksum = crc32(b);
}

/* 1 if it is a whole block, 0 if it is all zeros, -1 if it is anything else. */
static int look(struct block *b, uint64_t index) {
    const uint64_t *words = (const uint64_t *)b;
    if (b->magic == MAGIC && b->index == index && b->zero == 0) {
        uint32_t checksum = b->checksum;
        b->checksum = 0;
        int right = crc32(b) == checksum;
        b->checksum = checksum;
        return right ? 1 : -1;
    }
    for (int i = 0; i < BLOCK / 8; i++)
        if (words[i]) return -1;
    return 0;
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static void *aligned(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, size)) abort();
    return memory;
}

/* Job N writes to spans N, N + jobs, ... of the region alone: no block has two writers at once. */
static void *writer(void *argument) {
    const long self = (long)(intptr_t)argument;
    struct block *buffer = aligned(MAX_SPAN * BLOCK);
    uint64_t random = 0x1234567 + self, due = 0;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (held || rate == 0 || self >= jobs || block_count < (uint64_t)(span * jobs)) {
            pthread_cond_wait(&changed, &lock);
            due = 0;
        }
        const uint64_t step = rate > 0 ? 1000000ull * jobs / rate : 0, now = now_us();
        if (step && due > now) {
            pthread_mutex_unlock(&lock);
            usleep(due - now < 50000 ? due - now : 50000);
            continue;
        }
        if (due + 1000000 < now) due = now;
        due += step;
        const uint64_t spans = block_count / span / jobs, count = span, from = seed;
        const uint64_t index = first_block + (mix(&random) % spans * jobs + self) * count, seq = next_seq;
        next_seq += count;
        busy++;
        pthread_mutex_unlock(&lock);

        for (uint64_t i = 0; i < count; i++) fill(&buffer[i], index + i, seq + i, from);
        const uint64_t begin = now_us();
        const ssize_t length = count * BLOCK, written = pwrite(disk, buffer, length, index * BLOCK);
        const uint64_t took = now_us() - begin;

        pthread_mutex_lock(&lock);
        if (written == length)
            for (uint64_t i = 0; i < count; i++) table[index + i] = seq + i;
        else
            errors++;
        if (took > worst_us) worst_us = took;
        acknowledged++;
        busy--;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *ticker(void *argument) {
    const int tty = (int)(intptr_t)argument;
    uint64_t seen = 0;
    for (;;) {
        usleep(5000);
        const uint64_t now = acknowledged;
        const char tick = now == seen ? 2 : 1;
        seen = now;
        if (write(tty, &tick, 1) != 1) usleep(100000);
    }
    return NULL;
}

static void hold(int on) {
    pthread_mutex_lock(&lock);
    held = on;
    while (on && busy) pthread_cond_wait(&changed, &lock);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void answer(const char *format, ...) {
    static char line[4096];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    for (int sent = 0; sent < length;) {
        ssize_t n = write(commands, line + sent, length - sent);
        if (n < 0 && errno != EINTR && errno != EAGAIN) return;
        if (n > 0) sent += n;
    }
}

/* Reads the whole disk; with `take` set, what is there becomes what is expected. */
static void read_all(int take) {
    struct block *buffer = aligned(PIECE * BLOCK);
    uint64_t good = 0, empty = 0, bad = 0, first = 0;
    for (uint64_t at = 0; at < blocks; at += PIECE) {
        const uint64_t count = blocks - at < PIECE ? blocks - at : PIECE;
        if (pread(disk, buffer, count * BLOCK, at * BLOCK) != (ssize_t)(count * BLOCK)) {
            answer("error read of block %llu: %s\n", (unsigned long long)at, strerror(errno));
            free(buffer);
            return;
        }
        for (uint64_t i = 0; i < count; i++) {
            const int kind = look(&buffer[i], at + i);
            const uint64_t seq = kind == 1 ? buffer[i].seq : 0;
            if (take && kind >= 0) {
                table[at + i] = seq;
                if (seq >= next_seq) next_seq = seq + 1;
            }
            if (kind < 0 || seq != table[at + i]) {
                if (!bad++) first = at + i;
            } else if (kind) {
                good++;
            } else {
                empty++;
            }
        }
    }
    free(buffer);
    answer("ok good %llu empty %llu bad %llu first %llu\n", (unsigned long long)good, (unsigned long long)empty,
           (unsigned long long)bad, (unsigned long long)first);
}

static void print_table(void) {
    answer("ok");
    for (uint64_t i = 0; i < blocks;) {
        uint64_t end = i;
        while (end < blocks && table[end] == table[i]) end++;
        answer(" %llx*%llx", (unsigned long long)table[i], (unsigned long long)(end - i));
        i = end;
    }
    answer("\n");
}

static void trim(uint64_t first, uint64_t count) {
    uint64_t range[2] = {first * BLOCK, count * BLOCK};
    if (first + count > blocks) return answer("error beyond the end\n");
    hold(1);
    if (ioctl(disk, BLKDISCARD, range)) {
        answer("error discard: %s\n", strerror(errno));
    } else {
        for (uint64_t i = 0; i < count; i++) table[first + i] = 0;
        answer("ok\n");
    }
    hold(0);
}

static void obey(const char *line) {
    long a = 0, b = 0, c = 0;
    unsigned long long x = 0, y = 0;
    if (sscanf(line, "write %ld %ld %ld", &a, &b, &c) == 3) {
        if (b < 1 || b > MAX_SPAN || c < 1 || c > MAX_JOBS) return answer("error out of bounds\n");
        hold(1);
        rate = a, span = b, jobs = c;
        hold(0);
        answer("ok\n");
    } else if (sscanf(line, "region %llu %llu", &x, &y) == 2) {
        if (x + y > blocks) return answer("error beyond the end\n");
        hold(1);
        first_block = x, block_count = y;
        hold(0);
        answer("ok\n");
    } else if (sscanf(line, "trim %llu %llu", &x, &y) == 2) {
        trim(x, y);
    } else if (sscanf(line, "seed %llu", &x) == 1) {
        hold(1);
        seed = x;
        hold(0);
        answer("ok\n");
    } else if (!strcmp(line, "quiesce")) {
        hold(1);
        rate = 0;
        const int failed = fsync(disk);
        hold(0);
        failed ? answer("error flush: %s\n", strerror(errno)) : answer("ok\n");
    } else if (!strcmp(line, "verify") || !strcmp(line, "adopt")) {
        hold(1);
        read_all(line[0] == 'a');
        hold(0);
    } else if (!strcmp(line, "table")) {
        hold(1);
        print_table();
        hold(0);
    } else if (!strcmp(line, "info")) {
        pthread_mutex_lock(&lock);
        const uint64_t seq = next_seq - 1, failed = errors, worst = worst_us;
        worst_us = 0;
        pthread_mutex_unlock(&lock);
        answer("ok blocks %llu seq %llu errors %llu worst %llu\n", (unsigned long long)blocks,
               (unsigned long long)seq, (unsigned long long)failed, (unsigned long long)worst);
    } else {
        answer("error no such command\n");
    }
}

static int raw_tty(const char *path) {
    int tty = open(path, O_RDWR | O_NOCTTY);
    struct termios settings;
    if (tty < 0 || tcgetattr(tty, &settings)) return tty;
    cfmakeraw(&settings);
    settings.c_cflag |= CLOCAL;
    tcsetattr(tty, TCSANOW, &settings);
    return tty;
}

static void load(const char *name, int last) {
    char path[64];
    snprintf(path, sizeof path, "/modules/%s.ko", name);
    int file = open(path, O_RDONLY);
    if (file >= 0 && syscall(SYS_finit_module, file, "", 0) && errno != EEXIST && last)
        fprintf(stderr, "guest: %s: %s\n", path, strerror(errno));
    if (file >= 0) close(file);
}

int main(void) {
    static const char *const modules[] = {
        "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"};
    mkdir("/dev", 0755);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    const int log = raw_tty("/dev/ttyS0");
    dup2(log, 2);
    for (int pass = 0; pass < 2; pass++) /* the order differs between kernels: what failed first works then */
        for (size_t i = 0; i < sizeof modules / sizeof *modules; i++) load(modules[i], pass);
    commands = raw_tty("/dev/ttyS1");
    for (int i = 0; i < 1000 && disk < 0; i++, usleep(10000)) disk = open("/dev/vda", O_RDWR | O_DIRECT);
    uint64_t size = 0;
    if (disk < 0 || commands < 0 || ioctl(disk, BLKGETSIZE64, &size)) {
        fprintf(stderr, "guest: no disk: %s\n", strerror(errno));
        for (;;) sleep(1000);
    }
    blocks = block_count = size / BLOCK;
    table = calloc(blocks ? blocks : 1, sizeof *table);
    make_crc_table();
    pthread_t thread;
    for (intptr_t i = 0; i < MAX_JOBS; i++) pthread_create(&thread, NULL, writer, (void *)i);
    pthread_create(&thread, NULL, ticker, (void *)(intptr_t)log);

    answer("ready blocks %llu\n", (unsigned long long)blocks);
    char line[256];
    for (size_t length = 0;;) {
        char c;
        if (read(commands, &c, 1) != 1) continue;
        if (c != '\n') {
            if (length < sizeof line - 1) line[length++] = c;
            continue;
        }
        line[length] = 0;
        if (length) obey(line);
        length = 0;
    }
}
