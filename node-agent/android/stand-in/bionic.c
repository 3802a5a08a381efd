// A stand-in for bionic, Android's C library: its names and layouts, for what our programs take of it, on top of musl, which does the work. It is
// preloaded by musl's loader. It is no test of bionic, nor of Android's loader, its DNS, its drivers or its permissions.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// === Start and end ===

int __libc_start_main(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void));

// bionic calls it with the stack as the kernel has left it: how many arguments there are, and their addresses.
void __libc_init(void *stack, void (*at_exit)(void), int (*main)(int, char **, char **), void *structors) {
    uintptr_t *words = stack;
    (void)at_exit, (void)structors;
    __libc_start_main(main, (int)words[0], (char **)(words + 1), 0, 0, 0);
}

int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *library) {
    (void)library;
    return pthread_atfork(prepare, parent, child);
}

// musl has none; what threads leave behind ends with the process.
int __cxa_thread_atexit_impl(void (*destroy)(void *), void *object, void *library) {
    (void)destroy, (void)object, (void)library;
    return 0;
}

// === Names that are the same under another name ===

int *__errno(void) { return __errno_location(); }
uintptr_t __stack_chk_guard = 0x6e6f6b6172616c00;
pid_t gettid(void) { return (pid_t)syscall(SYS_gettid); }
// Before Android 6 `stderr` was a place in this; programs still carry its address.
char __sF[3 * 152];

int __android_log_write(int priority, const char *tag, const char *text) {
    return fprintf(stderr, "log %d/%s: %s\n", priority, tag ? tag : "", text);
}

// Programs look for names of newer Androids in "libc.so", which is musl's alone here: what stands in for bionic is found among all that is loaded.
void *dlopen(const char *name, int flags) {
    static void *(*real)(const char *, int);
    if (!real) real = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    return real(name && !strcmp(name, "libc.so") ? 0 : name, flags);
}

// A property NAME is read of the variable PROP_NAME, with underscores in the place of dots.
int __system_property_get(const char *name, char *value) {
    char variable[128];
    snprintf(variable, sizeof variable, "PROP_%s", name);
    for (char *at = variable; *at; at++)
        if (*at == '.') *at = '_';
    const char *found = getenv(variable);
    snprintf(value, 92, "%s", found ? found : "");
    return (int)strlen(value);
}

// === What has other numbers ===

long sysconf(int name) {
    static long (*real)(int);
    if (!real) real = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    switch (name) {
    case 0x00: return real(_SC_ARG_MAX);
    case 0x06: return real(_SC_CLK_TCK);
    case 0x0b: return real(_SC_OPEN_MAX);
    case 0x27:
    case 0x28: return real(_SC_PAGESIZE);
    case 0x48: return real(_SC_GETPW_R_SIZE_MAX);
    case 0x60: return real(_SC_NPROCESSORS_CONF);
    case 0x61: return real(_SC_NPROCESSORS_ONLN);
    case 0x62: return real(_SC_PHYS_PAGES);
    case 0x63: return real(_SC_AVPHYS_PAGES);
    }
    fprintf(stderr, "stand-in: sysconf(%#x) is not known\n", name);
    errno = EINVAL;
    return -1;
}

// === What has another layout ===

struct bionic_addrinfo {
    int flags, family, type, protocol;
    socklen_t length;
    char *name;
    struct sockaddr *address;
    struct bionic_addrinfo *next;
};

static int bionic_error(int error) {
    switch (error) {
    case EAI_NONAME: return 8;
    case EAI_AGAIN: return 2;
    case EAI_SYSTEM: return 11;
    default: return 4;
    }
}

int bionic_getaddrinfo(const char *, const char *, const struct bionic_addrinfo *, struct bionic_addrinfo **) __asm__("getaddrinfo");
int bionic_getaddrinfo(const char *host, const char *service, const struct bionic_addrinfo *wanted, struct bionic_addrinfo **out) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    static void (*release)(struct addrinfo *);
    if (!real) {
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
        release = (void (*)(struct addrinfo *))dlsym(RTLD_NEXT, "freeaddrinfo");
    }
    struct addrinfo hints = {0}, *found;
    if (wanted) {
        hints.ai_family = wanted->family;
        hints.ai_socktype = wanted->type;
        hints.ai_protocol = wanted->protocol;
        hints.ai_flags = wanted->flags & 7;
    }
    int error = real(host, service, wanted ? &hints : 0, &found);
    if (error) return bionic_error(error);
    struct bionic_addrinfo **tail = out;
    *out = 0;
    for (struct addrinfo *each = found; each; each = each->ai_next) {
        struct bionic_addrinfo *copy = calloc(1, sizeof *copy + each->ai_addrlen);
        copy->family = each->ai_family;
        copy->type = each->ai_socktype;
        copy->protocol = each->ai_protocol;
        copy->length = each->ai_addrlen;
        copy->address = memcpy(copy + 1, each->ai_addr, each->ai_addrlen);
        *tail = copy;
        tail = &copy->next;
    }
    release(found);
    return 0;
}

void bionic_freeaddrinfo(struct bionic_addrinfo *) __asm__("freeaddrinfo");
void bionic_freeaddrinfo(struct bionic_addrinfo *each) {
    while (each) {
        struct bionic_addrinfo *next = each->next;
        free(each);
        each = next;
    }
}

struct bionic_sigaction {
    int flags;
    void (*handler)(int);
    uint64_t mask;
    void (*restorer)(void);
};

int bionic_sigaction(int, const struct bionic_sigaction *, struct bionic_sigaction *) __asm__("sigaction");
int bionic_sigaction(int signal, const struct bionic_sigaction *wanted, struct bionic_sigaction *before) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = (int (*)(int, const struct sigaction *, struct sigaction *))dlsym(RTLD_NEXT, "sigaction");
    struct sigaction action = {0}, old = {0};
    if (wanted) {
        action.sa_handler = wanted->handler;
        // musl brings a restorer of its own.
        action.sa_flags = wanted->flags & ~0x04000000;
        memcpy(&action.sa_mask, &wanted->mask, sizeof wanted->mask);
    }
    int failed = real(signal, wanted ? &action : 0, before ? &old : 0);
    if (!failed && before) {
        *before = (struct bionic_sigaction){.flags = old.sa_flags, .handler = old.sa_handler};
        memcpy(&before->mask, &old.sa_mask, sizeof before->mask);
    }
    return failed;
}
