"""Which way a request goes: straight to the origin server, or through a proxy."""
