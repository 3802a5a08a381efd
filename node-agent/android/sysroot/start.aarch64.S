// The first instructions of a program for 64-bit ARM: __libc_init(stack, nothing, main, structors), which never comes back.
    .text
    .globl _start
    .type _start, %function
_start:
    bti j
    mov x29, #0
    mov x30, #0
    mov x0, sp
    mov x1, #0
    adrp x2, main
    add x2, x2, :lo12:main
    adrp x3, structors
    add x3, x3, :lo12:structors
    b __libc_init
    .size _start, . - _start

#include "program.S"
