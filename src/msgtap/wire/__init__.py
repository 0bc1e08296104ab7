"""Bytes in, facts out. Nothing here does I/O, reads a clock or knows telemetry."""
