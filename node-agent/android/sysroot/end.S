// What comes last: nothing.
    .section .note.GNU-stack, "", %progbits
