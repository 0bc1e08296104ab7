"""Records to OpenTelemetry: one span, a few points and one log event for each call. The API only, no SDK, no client."""
