"""Metrics and traces, made of events and of what stands around publishes and handlers.

- `narrowboat.telemetry.prometheus` (extra `prometheus`): counters, histograms and depths for a scrape.
- `narrowboat.telemetry.otel` (extra `otel`): spans and metrics by OpenTelemetry's conventions for messaging.

Each is imported by who uses it, and needs its client library. A listener that fails costs a line of the log, and no message.
"""
