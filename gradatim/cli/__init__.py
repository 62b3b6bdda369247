"""The command line: functions whose signatures define the commands' options.

``main`` finds the command and turns errors into one line and an exit code; ``output`` has the results, the progress
bars, Ctrl-C and the shared options. Results go to stdout, everything else to stderr.
"""
