"""
HTTP/1.1 messages, both roles (RFC 9110, RFC 9112).

Reading is strict and yields values; writing is canonical and starts from those
values, so that nothing of a head is ever passed on as it came.  This package is
pure: it holds no clock, no randomness, no sockets and no logging.

``fields`` holds field lines, ``targets`` request-targets, ``heads`` what stands
before the content, ``bodies`` how the content is framed, ``persistence`` whether
a connection goes on, and ``readers`` puts all of it together, incrementally.
"""
