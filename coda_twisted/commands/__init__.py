"""What people run: thin over the library.  :mod:`coda_twisted.commands.main` begins."""
