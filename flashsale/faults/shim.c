/* Stands between one process and the kernel, for faults that nobody can make from outside: a power
 * cut, a slow or failing fsync, a full disk, a shifted clock. Loaded by LD_PRELOAD into a process of
 * a private stack; FLASHSALE_SHIM names the control file, which shim.py writes and this file reads.
 *
 * What a power cut takes. Before a byte of a watched file is changed, what stood there goes into an
 * undo file, named by the file's inode, and with it the file's length. An fsync that succeeded drops
 * what was written down before it began. After SIGKILL the undo files say how to bring each file
 * back to its last fsync; shim.py does that. An undo file outlives the process, as what the kernel
 * still has in memory does: a kill and then a power cut take both together.
 *
 *     undo file   u64 where the first live record begins, then records
 *     record      u64 offset, u64 length of the old bytes, u64 length of the file, the old bytes
 *
 * Not seen: names (a file that was created, renamed or removed stays so without an fsync of its
 * folder), O_TRUNC, memory mappings, the C library's own buffered files, asynchronous system calls.
 * A process is to be told to leave those away where it has the choice.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ != 8
#error "made for machines of 64 bits"
#endif

/* The layout that shim.py packs. */
struct control {
    int64_t clock_ns;        /* added to the time of day */
    uint32_t fsync_delay_ms; /* before each fsync of a watched file */
    uint32_t fsync_error;    /* an errno that each of them fails with, or 0 */
    uint32_t write_error;    /* an errno for writes that make a watched file longer, or 0 */
    uint32_t keeps_undo;
    char folder[];           /* files below it are watched; none where it is empty */
};

struct file {
    dev_t dev;
    ino_t ino;
    int undo, reader; /* descriptors, -1 until something is written */
    uint64_t head, end; /* of the live records in the undo file */
    unsigned generation; /* of the undo file: how often it was emptied */
};

enum { FILES_MAX = 16384, CONTROL_BYTES = 8192, HEAD_BYTES = sizeof(uint64_t) };

static volatile struct control *control;
static char undo_folder[PATH_MAX];
static int (*real_clock)(clockid_t, struct timespec *);

/* Found without the lock, since a signal's handler may write to a log while its thread has it. */
static struct file files[FILES_MAX];
static unsigned file_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void take(void) { pthread_mutex_lock(&lock); }
static void give(void) { pthread_mutex_unlock(&lock); }

static void fail(const char *what)
{
    char line[256];
    int length = snprintf(line, sizeof line, "flashsale shim: %s: %s\n", what, strerror(errno));
    syscall(SYS_write, 2, line, length);
    abort();
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FLASHSALE_SHIM");
    real_clock = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (!path)
        return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        fail(path);
    void *page = mmap(NULL, CONTROL_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page == MAP_FAILED)
        fail(path);
    snprintf(undo_folder, sizeof undo_folder, "%s.undo", path);
    pthread_atfork(take, give, give);
    control = page;
}

/* Watched files ---------------------------------------------------------------------------------*/

static struct file *known(const struct stat *st)
{
    unsigned count = __atomic_load_n(&file_count, __ATOMIC_ACQUIRE);
    for (unsigned n = 0; n < count; n++)
        if (files[n].ino == st->st_ino && files[n].dev == st->st_dev)
            return &files[n];
    return NULL;
}

static int is_below_folder(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    size_t folder = strlen((const char *)control->folder);
    return length > (ssize_t)folder && path[folder] == '/'
        && memcmp(path, (const char *)control->folder, folder) == 0;
}

/* The watched file behind a descriptor, NULL for any other. */
static struct file *watched(int fd, struct stat *st)
{
    if (!control || !control->folder[0])
        return NULL;
    int before = errno;
    struct file *file = NULL;
    if (fstat(fd, st) == 0 && S_ISREG(st->st_mode)) {
        file = known(st);
        if (!file && is_below_folder(fd)) {
            take();
            file = known(st);
            if (!file) {
                if (file_count == FILES_MAX)
                    fail("too many files");
                file = &files[file_count];
                *file = (struct file){st->st_dev, st->st_ino, -1, -1, HEAD_BYTES, HEAD_BYTES, 0};
                __atomic_store_n(&file_count, file_count + 1, __ATOMIC_RELEASE);
            }
            give();
        }
    }
    errno = before;
    return file;
}

static void put(int fd, const void *bytes, size_t length, uint64_t offset)
{
    if (syscall(SYS_pwrite64, fd, bytes, length, offset) != (ssize_t)length)
        fail("the undo file cannot be written");
}

/* Where whole records end: a process that was killed may have left half of one. */
static uint64_t whole_end(int fd, uint64_t at)
{
    uint64_t record[3];
    struct stat st;
    fstat(fd, &st);
    while (at + sizeof record <= (uint64_t)st.st_size) {
        if (syscall(SYS_pread64, fd, record, sizeof record, at) != sizeof record)
            fail("the undo file cannot be read");
        if (at + sizeof record + record[1] > (uint64_t)st.st_size)
            break;
        at += sizeof record + record[1];
    }
    return at;
}

/* By system calls alone, here and below: an undo file may have the inode that a watched file had,
 * and our own functions would take it for that, and wait for the lock. */
static void open_undo(struct file *file, int fd)
{
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%llu", undo_folder, (unsigned long long)file->ino);
    file->undo = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    file->reader = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file->undo < 0 || file->reader < 0)
        fail("the undo file cannot be opened");
    uint64_t head = 0;
    if (syscall(SYS_pread64, file->undo, &head, sizeof head, 0) != sizeof head || !head)
        put(file->undo, &(uint64_t){head = HEAD_BYTES}, sizeof head, 0);
    file->head = head;
    file->end = whole_end(file->undo, head);
    if (syscall(SYS_ftruncate, file->undo, file->end) != 0)
        fail("the undo file cannot be cut");
}

/* Write down what is about to be changed: `length` bytes from `offset` on. Called with the lock. */
static void remember(struct file *file, int fd, off_t size, off_t offset, uint64_t length)
{
    static char bytes[1 << 16];
    if (!control->keeps_undo)
        return;
    if (file->undo < 0)
        open_undo(file, fd);
    uint64_t old = offset >= size ? 0 : (uint64_t)(size - offset);
    if (old > length)
        old = length;
    uint64_t at = file->end, end = at + 3 * sizeof(uint64_t) + old;
    for (uint64_t done = 0; done < old;) {
        size_t part = old - done < sizeof bytes ? old - done : sizeof bytes;
        ssize_t got = syscall(SYS_pread64, file->reader, bytes, part, offset + done);
        if (got <= 0)
            fail("what is about to be changed cannot be read");
        put(file->undo, bytes, got, at + 3 * sizeof(uint64_t) + done);
        done += got;
    }
    /* The head last: until it is there, the record is no whole one. */
    put(file->undo, (uint64_t[]){offset, old, size}, 3 * sizeof(uint64_t), at);
    file->end = end;
}

/* What was written down before `mark` is on disk. Called with the lock. */
static void forget(struct file *file, uint64_t mark, unsigned generation)
{
    if (file->undo < 0 || generation != file->generation || mark <= file->head)
        return;
    file->head = mark;
    if (mark == file->end) {
        file->head = file->end = HEAD_BYTES;
        file->generation++;
    }
    put(file->undo, &file->head, sizeof file->head, 0);
    if (file->end == HEAD_BYTES && syscall(SYS_ftruncate, file->undo, HEAD_BYTES) != 0)
        fail("the undo file cannot be cut");
}

/* A name goes: the last one of a file takes its undo file along, as its inode may be another's. */
static void forget_name(int folder, const char *path)
{
    struct stat st;
    int before = errno;
    if (control && control->folder[0]
        && fstatat(folder, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 1) {
        take();
        struct file *file = known(&st);
        if (file && file->undo >= 0) {
            char undo[PATH_MAX + 32];
            snprintf(undo, sizeof undo, "%s/%llu", undo_folder, (unsigned long long)file->ino);
            syscall(SYS_unlinkat, AT_FDCWD, undo, 0);
            syscall(SYS_close, file->undo);
            syscall(SYS_close, file->reader);
            file->undo = file->reader = -1;
            file->generation++;
        }
        give();
    }
    errno = before;
}

/* Writes ----------------------------------------------------------------------------------------*/

static int is_refused(const struct stat *st, off_t offset, uint64_t length)
{
    if (control->write_error && offset + (off_t)length > st->st_size) {
        errno = control->write_error;
        return 1;
    }
    return 0;
}

/* Where a write without an offset of its own goes to. */
static off_t place(int fd, const struct stat *st)
{
    return fcntl(fd, F_GETFL) & O_APPEND ? st->st_size : lseek(fd, 0, SEEK_CUR);
}

#define WRITE(fd, offset, length, call)                                        \
    do {                                                                       \
        struct stat st;                                                        \
        struct file *file = watched(fd, &st);                                  \
        if (!file)                                                             \
            return call;                                                       \
        take();                                                                \
        fstat(fd, &st);                                                        \
        off_t at = offset;                                                     \
        ssize_t done = -1;                                                     \
        if (!is_refused(&st, at, length)) {                                    \
            if (!(fcntl(fd, F_GETFL) & O_DSYNC)) /* O_SYNC has it in it */     \
                remember(file, fd, st.st_size, at, length);                    \
            done = call;                                                       \
        }                                                                      \
        give();                                                                \
        return done;                                                           \
    } while (0)

static size_t total(const struct iovec *parts, int count)
{
    size_t length = 0;
    for (int n = 0; n < count; n++)
        length += parts[n].iov_len;
    return length;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    WRITE(fd, place(fd, &st), length, syscall(SYS_write, fd, bytes, length));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    WRITE(fd, place(fd, &st), total(parts, count), syscall(SYS_writev, fd, parts, count));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    WRITE(fd, offset, length, syscall(SYS_pwrite64, fd, bytes, length, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset)
{
    WRITE(fd, offset, length, syscall(SYS_pwrite64, fd, bytes, length, offset));
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    WRITE(fd, offset, total(parts, count), syscall(SYS_pwritev, fd, parts, count, offset, 0L));
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    WRITE(fd, offset, total(parts, count), syscall(SYS_pwritev, fd, parts, count, offset, 0L));
}

static off_t place2(int fd, const struct stat *st, off_t offset, int flags)
{
    if (flags & RWF_APPEND)
        return st->st_size;
    return offset == -1 ? place(fd, st) : offset;
}

ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
    WRITE(fd, place2(fd, &st, offset, flags), total(parts, count),
        syscall(SYS_pwritev2, fd, parts, count, offset, 0L, flags));
}

ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    return pwritev2(fd, parts, count, offset, flags);
}

/* A new length: what lies beyond it goes, or room is made. */
static int resized(int fd, off_t length)
{
    struct stat st;
    struct file *file = watched(fd, &st);
    if (!file)
        return syscall(SYS_ftruncate, fd, length);
    take();
    fstat(fd, &st);
    off_t from = length < st.st_size ? length : st.st_size;
    remember(file, fd, st.st_size, from, st.st_size - from);
    int done = syscall(SYS_ftruncate, fd, length);
    give();
    return done;
}

int ftruncate(int fd, off_t length) { return resized(fd, length); }
int ftruncate64(int fd, off64_t length) { return resized(fd, length); }

int truncate(const char *path, off_t length)
{
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    int done = resized(fd, length), why = errno;
    syscall(SYS_close, fd);
    errno = why;
    return done;
}

int truncate64(const char *path, off64_t length) { return truncate(path, length); }

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    WRITE(fd, offset, length, syscall(SYS_fallocate, fd, mode, offset, length));
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return fallocate(fd, mode, offset, length);
}

int posix_fallocate(int fd, off_t offset, off_t length)
{
    int before = errno;
    int found = fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
    errno = before;
    return found;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return posix_fallocate(fd, offset, length);
}

int unlink(const char *path)
{
    forget_name(AT_FDCWD, path);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int unlinkat(int folder, const char *path, int flags)
{
    forget_name(folder, path);
    return syscall(SYS_unlinkat, folder, path, flags);
}

int rename(const char *from, const char *to)
{
    forget_name(AT_FDCWD, to);
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* fsync -----------------------------------------------------------------------------------------*/

static int synced(int fd, long call)
{
    struct stat st;
    struct file *file = watched(fd, &st);
    if (!file)
        return syscall(call, fd);
    take();
    if (control->keeps_undo && file->undo < 0)
        open_undo(file, fd); /* a process before this one may have written there */
    uint64_t mark = file->end; /* what comes while it waits and runs is not promised */
    unsigned generation = file->generation;
    give();
    if (control->fsync_delay_ms) {
        struct timespec wait = {control->fsync_delay_ms / 1000,
            control->fsync_delay_ms % 1000 * 1000000L};
        nanosleep(&wait, NULL);
    }
    if (control->fsync_error) {
        errno = control->fsync_error;
        return -1;
    }
    int done = syscall(call, fd);
    if (done == 0) {
        take();
        forget(file, mark, generation);
        give();
    }
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* The clock -------------------------------------------------------------------------------------*/

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int done = real_clock ? real_clock(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    int is_of_day = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (done == 0 && is_of_day && control && control->clock_ns) {
        int64_t ns = now->tv_sec * 1000000000LL + now->tv_nsec + control->clock_ns;
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone; /* obsolete */
    if (clock_gettime(CLOCK_REALTIME, &found) != 0)
        return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found = {0, 0};
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
