"""
Where people live: the places in other packages where an agent or an endpoint goes in.

One module for each; it imports the package it is for, and nothing else of ours
imports it.  What takes an ``IAgent`` or an ``IStreamClientEndpoint`` needs none.
"""
