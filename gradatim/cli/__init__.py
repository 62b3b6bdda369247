"""How is Gradatim used from a terminal?

One thin file per verb, each a function whose signature is its options; ``main`` binds them and turns errors into one
line and an exit code. ``progress`` draws events, ``stopping`` hears Ctrl-C, ``options`` holds what verbs share and
``show`` writes results. Results go to stdout, everything else to stderr. What a verb does lies in the modules below:
everything here can be done from Python too.
"""
