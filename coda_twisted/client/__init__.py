"""
Reach a server: one storey each, read from the ground up.

``connection`` speaks HTTP/1.1 over any transport, ``pool`` keeps connections,
``exchange`` carries one request from its route to its response, ``tunnel`` and
``agent`` are the faces Twisted programs use.
"""
