// What a library has at its beginning: a handle, which is its own address.
    .globl __dso_handle
    .hidden __dso_handle
    .data
    .balign 8
__dso_handle:
    .quad __dso_handle
    .section .note.GNU-stack, "", %progbits
