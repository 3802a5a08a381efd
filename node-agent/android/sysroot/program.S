// What a program has besides: no constructors but those that its dynamic section names, a handle of its own, and the mark of the level it is
// made for.
    .bss
    .balign 8
structors:
    .zero 48
    .globl __dso_handle
    .hidden __dso_handle
    .data
    .balign 8
__dso_handle:
    .quad 0

    .section .note.android.ident, "a", %note
    .balign 4
    .long 2f - 1f
    .long 3f - 2f
    .long 1
1:  .asciz "Android"
2:  .long API_LEVEL
3:
    .section .note.GNU-stack, "", %progbits
