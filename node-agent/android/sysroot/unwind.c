// The names of glibc that Debian's libunwind asks for, on Android's library. What it prints of its own faults is lost; that it ends is not.
void abort(void);
int *__errno(void);

int *__errno_location(void) { return __errno(); }

void __assert_fail(const char *what, const char *file, unsigned line, const char *function) {
    (void)what, (void)file, (void)line, (void)function;
    abort();
}

int __fprintf_chk(void *stream, int flag, const char *format, ...) {
    (void)stream, (void)flag, (void)format;
    return 0;
}
