// The first instructions of a program for x86_64: __libc_init(stack, nothing, main, structors), which never comes back.
    .text
    .globl _start
    .type _start, @function
_start:
    xorl %ebp, %ebp
    movq %rsp, %rdi
    andq $~15, %rsp
    xorl %esi, %esi
    leaq main(%rip), %rdx
    leaq structors(%rip), %rcx
    callq __libc_init
    hlt
    .size _start, . - _start

#include "program.S"
