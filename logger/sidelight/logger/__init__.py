"""Capture and collection: the proxy, the spool and the emitter; the door, the journals, pairing."""
