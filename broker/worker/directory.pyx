"""The directory: this worker's replica of what the router decides (vhosts, users, permissions, exchanges, the places of queues).

It is changed by the router's changes alone, in their order, and read by everything else in the worker: with it, refusals and the default
exchange need no round trip. Bindings are not in it; they are the router's. It knows where queues are, not what they hold:
`QueueEntry.local` is filled in by the worker that owns the queue.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from leveret.lookup.byte_map cimport byte_map_find, byte_map_free, byte_map_remove, byte_map_set

from leveret.auth.permissions import Permissions
from leveret.auth.users import User, Users


cdef class ExchangeEntry:
    def __init__(self, change):
        self.id = change["id"]
        self.name = change["name"]
        self.vhost = change["vhost"]
        self.type = change["type"]
        self.durable = change["durable"]
        self.auto_delete = change["auto_delete"]
        self.internal = change["internal"]
        self.arguments = change["arguments"]
        self.name_bytes = self.name.encode()

    def __str__(self):
        return f"exchange '{self.name}' in vhost '{self.vhost}'"


cdef class QueueEntry:
    def __init__(self, change):
        self.id = change["id"]
        self.name = change["name"]
        self.vhost = change["vhost"]
        self.durable = change["durable"]
        self.auto_delete = change["auto_delete"]
        self.exclusive = change["exclusive"]
        self.arguments = change["arguments"]
        self.owner = change["owner"]
        self.shard = change["shard"]
        self.worker = change["worker"]
        self.name_bytes = self.name.encode()

    def __str__(self):
        return f"queue '{self.name}' in vhost '{self.vhost}'"


cdef class Vhost:
    def __init__(self, str name):
        self.name = name
        self.exchanges = {}
        self.queues = {}

    def __dealloc__(self):
        byte_map_free(&self.exchange_map)
        byte_map_free(&self.queue_map)

    cdef ExchangeEntry find_exchange(self, const uint8_t* name, size_t size):
        cdef uint64_t* found = byte_map_find(&self.exchange_map, name, size)
        return <ExchangeEntry><void*>found[0] if found != NULL else None

    cdef void* find_queue(self, const uint8_t* name, size_t size) noexcept:
        """A borrowed pointer to the QueueEntry, or NULL."""
        cdef uint64_t* found = byte_map_find(&self.queue_map, name, size)
        return <void*>found[0] if found != NULL else NULL

    def add_exchange(self, ExchangeEntry entry):
        byte_map_set(&self.exchange_map, <const uint8_t*>PyBytes_AS_STRING(entry.name_bytes), PyBytes_GET_SIZE(entry.name_bytes),
                     <uint64_t><void*>entry)
        self.exchanges[entry.name] = entry

    def remove_exchange(self, str name):
        cdef bytes name_bytes = name.encode()
        byte_map_remove(&self.exchange_map, <const uint8_t*>PyBytes_AS_STRING(name_bytes), PyBytes_GET_SIZE(name_bytes))
        return self.exchanges.pop(name)

    def add_queue(self, QueueEntry entry):
        byte_map_set(&self.queue_map, <const uint8_t*>PyBytes_AS_STRING(entry.name_bytes), PyBytes_GET_SIZE(entry.name_bytes),
                     <uint64_t><void*>entry)
        self.queues[entry.name] = entry

    def remove_queue(self, str name):
        cdef bytes name_bytes = name.encode()
        byte_map_remove(&self.queue_map, <const uint8_t*>PyBytes_AS_STRING(name_bytes), PyBytes_GET_SIZE(name_bytes))
        return self.queues.pop(name)


cdef class Directory:
    """Empty until the router's snapshot has come."""

    def __init__(self):
        self.vhosts = {}
        self.queues = {}
        self.users = Users()
        self.permissions = Permissions()
        self.version = 1

    def apply(self, change):
        """Carry out one of the router's changes (see `leveret.router.topology`). Returns the entry that came or went, if it was one."""
        self.version += 1
        return getattr(self, "_" + change["change"])(change)

    def begin_snapshot(self, changes):
        """A snapshot is about to be applied, after a start of ours or the router's: forget users and permissions, which it repeats whole.

        Returns the changes that remove what we have and it has not.
        """
        self.users.clear()
        self.permissions.clear_all()
        queues = {change["id"] for change in changes if change["change"] == "queue_added"}
        exchanges = {change["id"] for change in changes if change["change"] == "exchange_added"}
        vhosts = {change["name"] for change in changes if change["change"] == "vhost_added"}
        removals = [
            {"change": "queue_removed", "id": queue.id, "vhost": queue.vhost, "name": queue.name, "worker": queue.worker}
            for queue in self.queues.values() if queue.id not in queues
        ]
        removals += [
            {"change": "exchange_removed", "id": exchange.id, "vhost": exchange.vhost, "name": exchange.name}
            for vhost in self.vhosts.values() for exchange in vhost.exchanges.values() if exchange.id not in exchanges
        ]
        return removals + [{"change": "vhost_removed", "name": name} for name in self.vhosts if name not in vhosts]

    def has(self, change):
        """Whether this part of a snapshot is known already."""
        if change["change"] == "queue_added":
            return change["id"] in self.queues
        if change["change"] == "exchange_added":
            vhost = self.vhosts.get(change["vhost"])
            return vhost is not None and change["name"] in vhost.exchanges and vhost.exchanges[change["name"]].id == change["id"]
        return False

    def _vhost_added(self, change):
        if change["name"] not in self.vhosts:
            self.vhosts[change["name"]] = Vhost(change["name"])

    def _vhost_removed(self, change):
        del self.vhosts[change["name"]]

    def _user_put(self, change):
        self.users.put(User(change["name"], change["password_hash"], change["hashing_algorithm"], frozenset(change["tags"])))

    def _user_removed(self, change):
        self.users.remove(change["name"])

    def _permissions_set(self, change):
        self.permissions.set(change["user"], change["vhost"], change["configure"], change["write"], change["read"])

    def _permissions_cleared(self, change):
        self.permissions.clear(change["user"], change["vhost"])

    def _exchange_added(self, change):
        entry = ExchangeEntry(change)
        self.vhosts[entry.vhost].add_exchange(entry)
        return entry

    def _exchange_removed(self, change):
        return self.vhosts[change["vhost"]].remove_exchange(change["name"])

    def _queue_added(self, change):
        entry = QueueEntry(change)
        self.vhosts[entry.vhost].add_queue(entry)
        self.queues[entry.id] = entry
        return entry

    def _queue_removed(self, change):
        entry = self.vhosts[change["vhost"]].remove_queue(change["name"])
        del self.queues[entry.id]
        return entry
