"""One small file for each HTTP client: how to see its requests and the bodies of its responses, and no telemetry.

Each offers ``install(module)`` and is found by the entry-point group ``msgtap.adapters``, whose names are the modules
to wait for.
"""
