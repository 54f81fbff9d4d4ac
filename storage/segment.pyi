"""Nothing for Python: `segment_store.pyx` and `sweep.pyx` read segments through it (`segment.pxd`)."""
