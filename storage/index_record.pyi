"""Nothing for Python: `segment_store.pyx` encodes and loads index records with it (`index_record.pxd`)."""
