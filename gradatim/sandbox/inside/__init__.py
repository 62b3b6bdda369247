"""The modules that run inside the sandbox, with the standard library only.

The folder is mounted read-only into the sandbox and imported there as the top-level package ``inside``; on the host it
is ``gradatim.sandbox.inside``.

    serializer, writer, reader   message format; encoding and decoding of values as plain bytes, without pickle
    extended_types, exceptions   values of further standard types and of numpy; exceptions as plain data
    rpc                          calls over a socket, in both directions
    isolation, fork_server       the interpreter that forks once per candidate, and the isolation of a fork
    candidate                    a fork of the fork server: runs the program, serves calls
    objects, program             objects and functions of the program, on the tests' side
    tester                       the trusted process: runs the tests in a second sandbox and decides the verdict

No module here imports the rest of Gradatim. No module protects the candidate's own process: a candidate may change
every module in its interpreter, which affects its own answers only.
"""
