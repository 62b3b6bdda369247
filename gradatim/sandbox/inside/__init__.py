"""The modules that run inside the sandbox, with the standard library only.

The folder is mounted read-only into the sandbox and imported there as the top-level package ``inside``; on the host it
is ``gradatim.sandbox.inside``.

    serializer      message format: limits, errors, handles; values cross as plain bytes, without pickle
    writer, reader  encoding and decoding of values
    extended_types  values of further standard types and of numpy, states of instances
    exceptions      exceptions as plain data, and their reconstruction
    operations      functions that one side may apply to an object of the other
    rpc             calls over a socket, in both directions
    bounds          bounds on kernel memory that no limit counts
    isolation       namespaces, limits and privileges of a forked child
    fork_server     the interpreter that forks once per candidate, in one sandbox
    candidate       a fork of the fork server: runs the program, serves calls
    objects         objects of the program, on the tests' side
    program         the program as the tests use it: calls and the end of a check
    suite           the tests of one problem, compiled, and the names that they take from the program
    tester          the trusted process: runs the tests in a second sandbox and decides the verdict

No module here imports the rest of Gradatim. No module protects the candidate's own process: a candidate may change
every module in its interpreter, which affects its own answers only.
"""
