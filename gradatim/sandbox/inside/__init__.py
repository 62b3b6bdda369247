"""What runs within the walls?

The modules of this package need nothing but the standard library. The folder is mounted read-only into the walls
and imported there as the top-level package ``inside``; on the host it is ``gradatim.sandbox.inside``, so that the
tests reach it.

    codec      values as plain bytes: no pickle, nothing is executed
    further    values of further standard types and of numpy, states of instances
    exceptions exceptions as plain data, and made again
    operations functions that one side may apply to an object of the other
    peer       calls over a socket, in both directions
    bounds     what a program may hold in the kernel where no limit counts it
    walls      what a forked child gives up before it runs foreign code
    nest       the interpreter that forks once per candidate, in one sandbox
    candidate  what a fork of the nest does: load the program, answer calls
    remote     functions, iterators and objects of the tests, as the program sees them
    objects    objects of the program, as the tests hold them
    program    the program as the tests see it: calls, claims and the end of a check
    suite      the tests of one problem, compiled, and what they take from the program
    tester     the trusted side: runs the tests in a second sandbox and decides the verdict

Nothing here may import the rest of Gradatim, and nothing here is a defence against the candidate's own process: a
candidate may change every module it finds in its interpreter and can spoil nothing but its own answers.
"""
