"""Files of every published format to arrays, tables and trees; read with suspicion.

One file per format. All check what a header claims before they decode anything, refuse with
`BadFile`, and never put a name or a number of a patient into a message or a log.
"""
