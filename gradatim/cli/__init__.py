"""The command line: one thin module per command, whose function signature defines the options.

``main`` binds the commands and turns errors into one line and an exit code; ``options`` has the shared options,
``output`` the results and ``progress`` the progress bars and Ctrl-C. Results go to stdout, everything else to stderr.
The commands only call the Python API and the modules below it.
"""
