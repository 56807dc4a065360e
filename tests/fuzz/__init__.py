"""
Fuzzing: what must hold for every input, whoever makes it up.

A target (:mod:`tests.fuzz.targets`, :mod:`tests.fuzz.front`) takes octets and raises
if something that must always hold does not.  Two make up inputs: hypothesis, in
``tests/test_fuzz.py``, for seconds; and atheris, which looks for inputs that reach
code not reached before, for as long as one likes::

    python -m tests.fuzz --seconds 60 chunks front

Both begin with ``corpus/TARGET``: inputs that were written by hand, or that once broke
something; their names say what they are.
"""
