"""The command line: `leveret start`, `status`, `stop`, `perf`, `version`. Clients of the node, except `start`, which becomes one."""
