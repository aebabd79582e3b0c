/* A disk that fails: preloaded, it lets the n-th change below a path fail with an error.
 *
 * FAIL_BELOW  only what is below this path counts
 * FAIL_AT     which change fails first, counted from 1; 0 for none
 * FAIL_ERRNO  the error's number
 * FAIL_ON     "1": all later changes fail too, as on a full disk; removals never do
 *
 * The environment is looked at anew each time, so that a forked child may set its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long changes;

static int is_below(const char *path)
{
    const char *root = getenv("FAIL_BELOW");
    return root && path && strncmp(path, root, strlen(root)) == 0;
}

/* Whether this change is to fail; errno is set then. */
static int fails(void)
{
    long number = atomic_fetch_add(&changes, 1) + 1;
    long first = atol(getenv("FAIL_AT") ? getenv("FAIL_AT") : "0");
    int on = getenv("FAIL_ON") && *getenv("FAIL_ON") == '1';
    if (!first || !(number == first || (on && number > first)))
        return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

static int path_fails(int directory, const char *path)
{
    char link[64], whole[2 * PATH_MAX];
    if (path && path[0] != '/') {
        ssize_t length;
        if (directory == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = readlink(link, whole, PATH_MAX);
        if (length < 0)
            return 0;
        snprintf(whole + length, sizeof whole - length, "/%s", path);
        path = whole;
    }
    return is_below(path) && fails();
}

static int descriptor_fails(int descriptor)
{
    char link[64], path[PATH_MAX];
    ssize_t length;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path) && fails();
}

long changes_made(void)
{
    return atomic_load(&changes);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...)                          \
    {                                                                   \
        va_list rest;                                                   \
        mode_t mode;                                                    \
        va_start(rest, flags);                                          \
        mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                   \
        if (flags & O_CREAT && path_fails(AT_FDCWD, path))              \
            return -1;                                                  \
        return REAL(name)(path, flags, mode);                           \
    }

#define OPENAT(name)                                                    \
    int name(int directory, const char *path, int flags, ...)           \
    {                                                                   \
        va_list rest;                                                   \
        mode_t mode;                                                    \
        va_start(rest, flags);                                          \
        mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                   \
        if (flags & O_CREAT && path_fails(directory, path))             \
            return -1;                                                  \
        return REAL(name)(directory, path, flags, mode);                \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define DESCRIPTOR(type, name, arguments, names)                        \
    type name arguments                                                 \
    {                                                                   \
        return descriptor_fails(descriptor) ? -1 : REAL(name) names;    \
    }

DESCRIPTOR(ssize_t, write, (int descriptor, const void *data, size_t size), (descriptor, data, size))
DESCRIPTOR(ssize_t, pwrite, (int descriptor, const void *data, size_t size, off_t at),
           (descriptor, data, size, at))
DESCRIPTOR(ssize_t, pwrite64, (int descriptor, const void *data, size_t size, off64_t at),
           (descriptor, data, size, at))
DESCRIPTOR(int, fsync, (int descriptor), (descriptor))
DESCRIPTOR(int, fdatasync, (int descriptor), (descriptor))
DESCRIPTOR(int, ftruncate, (int descriptor, off_t size), (descriptor, size))
DESCRIPTOR(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size))

int mkdir(const char *path, mode_t mode)
{
    return path_fails(AT_FDCWD, path) ? -1 : REAL(mkdir)(path, mode);
}

int mkdirat(int directory, const char *path, mode_t mode)
{
    return path_fails(directory, path) ? -1 : REAL(mkdirat)(directory, path, mode);
}

int rename(const char *from, const char *to)
{
    return path_fails(AT_FDCWD, to) ? -1 : REAL(rename)(from, to);
}

int renameat(int source, const char *from, int target, const char *to)
{
    return path_fails(target, to) ? -1 : REAL(renameat)(source, from, target, to);
}

int link(const char *from, const char *to)
{
    return path_fails(AT_FDCWD, to) ? -1 : REAL(link)(from, to);
}

int linkat(int source, const char *from, int target, const char *to, int flags)
{
    return path_fails(target, to) ? -1 : REAL(linkat)(source, from, target, to, flags);
}

int symlinkat(const char *content, int directory, const char *path)
{
    return path_fails(directory, path) ? -1 : REAL(symlinkat)(content, directory, path);
}
