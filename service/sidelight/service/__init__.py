"""Configuration, wiring, pipelines, HTTP API, metrics, console, command line."""
