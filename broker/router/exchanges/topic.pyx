"""The topic exchange: patterns of words joined by dots, `*` for exactly one word, `#` for zero or more.

The patterns form a trie. Its words are interned, a child is found in one hash table by (node, word id). Matching reads the key once, word
by word, with the *set* of nodes that the words so far can have led to; a node enters that set at most once per word, so the work is at most
words x nodes however the wildcards are arranged, and never exponential. Four things keep it far below that:

- a pattern is first brought to a normal form (`#.#` is `#`, `#.*` is `*.#`), so that `#.#.#.#` is one node;
- a `#` node matches whatever follows, so its own destinations are taken when it is reached, and it stays in the set only to lead on;
- a `#` node that goes on with one word only waits in a list for that word, and costs nothing while other words go by;
- when the only way on from one `#` leads to another `#` that has been reached, the first is needless: the later one stays reached anyway.

Words are as RabbitMQ splits them: the empty key has no word at all, `.` has two empty ones, and an empty word is a word.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from leveret.lookup.byte_map cimport byte_map_find, byte_map_free, byte_map_remove, byte_map_set
from leveret.router.exchanges.destination_set cimport destination_set_add, destination_set_free, destination_set_remove
from leveret.router.exchanges.exchange cimport Destinations, Exchange, Subject
from leveret.lookup.integer_map cimport integer_map_find, integer_map_free, integer_map_remove, integer_map_set

cdef enum:
    WORD_STAR = 1
    WORD_HASH = 2
    WORDS_FROM = 3


def split_pattern(bytes key):
    """The words of a binding key in normal form: in each run of wildcards with a `#` in it, the stars first and one `#` at its end."""
    words = []
    stars, hashed = 0, False
    for word in key.split(b".") if key else ():
        if word == b"#":
            hashed = True
        elif word == b"*":
            stars += 1
        else:
            words += [b"*"] * stars + [b"#"] * hashed + [word]
            stars, hashed = 0, False
    return words + [b"*"] * stars + [b"#"] * hashed


cdef class TopicExchange(Exchange):
    """Patterns."""

    def __init__(self, id):
        Exchange.__init__(self, id)
        self.free_words = []
        self.next_word = WORDS_FROM
        self.new_node(0, 0)

    def __dealloc__(self):
        cdef uint32_t at
        for at in range(self.node_count):
            destination_set_free(&self.bound[at])
        free(self.nodes)
        free(self.bound)
        free(self.waiting)
        free(self.reached)
        free(self.reached_next)
        integer_map_free(&self.children)
        byte_map_free(&self.words)

    @property
    def node_total(self):
        """Nodes in use, the root included: what must fall back to 1 when all bindings are gone."""
        cdef uint32_t total = self.node_count, at = self.free_node
        while at:
            total -= 1
            at = self.nodes[at].parent
        return total

    @property
    def word_total(self):
        """Distinct words in use."""
        return self.words.count

    cdef uint32_t new_node(self, uint32_t parent, uint32_t word) except 0:
        """A node below `parent`. The root answers 1 as well, because 0 is the error."""
        cdef uint32_t node, capacity
        cdef void* moved
        if self.free_node:
            node = self.free_node
            self.free_node = self.nodes[node].parent
        else:
            if self.node_count == self.node_capacity:
                capacity = self.node_capacity * 2 if self.node_capacity else 8
                moved = realloc(self.nodes, capacity * sizeof(Node))
                if moved == NULL:
                    raise MemoryError()
                self.nodes = <Node*>moved
                moved = realloc(self.bound, capacity * sizeof(DestinationSet))
                if moved == NULL:
                    raise MemoryError()
                self.bound = <DestinationSet*>moved
                # A set of reached nodes holds each node at most twice: entered in this step, or a `#` that stayed.
                moved = realloc(self.reached, capacity * 2 * sizeof(uint32_t))
                if moved == NULL:
                    raise MemoryError()
                self.reached = <uint32_t*>moved
                moved = realloc(self.reached_next, capacity * 2 * sizeof(uint32_t))
                if moved == NULL:
                    raise MemoryError()
                self.reached_next = <uint32_t*>moved
                self.node_capacity = capacity
            node = self.node_count
            self.node_count += 1
        memset(&self.nodes[node], 0, sizeof(Node))
        memset(&self.bound[node], 0, sizeof(DestinationSet))
        self.nodes[node].parent = parent
        self.nodes[node].word = word
        return node if node else 1

    cdef uint32_t child(self, uint32_t node, bytes word) except? 0:
        """The child that a pattern's word leads to, or 0."""
        cdef uint64_t* found
        if word == b"*":
            return self.nodes[node].star
        if word == b"#":
            return self.nodes[node].hash
        found = byte_map_find(&self.words, word, len(word))
        if found == NULL:
            return 0
        found = integer_map_find(&self.children, (<uint64_t>(node + 1) << 32) | <uint32_t>found[0])
        return <uint32_t>found[0] if found != NULL else 0

    cdef int make_waiting(self) except -1:
        """Room for the list of the newest word."""
        cdef uint32_t size = self.waiting_size * 2 if self.waiting_size else 16
        cdef Waiting* moved
        if self.next_word <= self.waiting_size:
            return 0
        moved = <Waiting*>realloc(self.waiting, size * sizeof(Waiting))
        if moved == NULL:
            raise MemoryError()
        memset(moved + self.waiting_size, 0, (size - self.waiting_size) * sizeof(Waiting))
        self.waiting = moved
        self.waiting_size = size
        return 0

    cdef int add(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef uint32_t node = 0, child, word_id
        cdef uint64_t* found
        cdef bytes word
        for word in split_pattern(key):
            child = self.child(node, word)
            if child == 0:
                if word == b"*":
                    child = self.new_node(node, WORD_STAR)
                    self.nodes[node].star = child
                elif word == b"#":
                    child = self.new_node(node, WORD_HASH)
                    self.nodes[node].hash = child
                else:
                    found = byte_map_find(&self.words, word, len(word))
                    if found != NULL:
                        word_id = <uint32_t>found[0]
                        found[0] += <uint64_t>1 << 32
                    else:
                        if self.free_words:
                            word_id = self.free_words.pop()
                        else:
                            word_id = self.next_word
                            self.next_word += 1
                            self.make_waiting()
                        byte_map_set(&self.words, word, len(word), (<uint64_t>1 << 32) | word_id)
                    child = self.new_node(node, word_id)
                    integer_map_set(&self.children, (<uint64_t>(node + 1) << 32) | word_id, child)
                    self.nodes[node].exact += 1
                    self.nodes[node].only_word = word_id if self.nodes[node].exact == 1 else 0
                    self.nodes[node].only_child = child
            node = child
        destination_set_add(&self.bound[node], destination)
        self.nodes[node].bound_count = self.bound[node].count
        return 0

    cdef int remove(self, bytes key, uint64_t destination, dict arguments) except -1:
        cdef uint32_t node = 0, child, parent
        cdef uint64_t* found
        cdef list words = split_pattern(key)
        cdef bytes word
        for word in words:
            child = self.child(node, word)
            if child == 0:
                raise KeyError(key)
            node = child
        if not destination_set_remove(&self.bound[node], destination):
            raise KeyError(key)
        self.nodes[node].bound_count = self.bound[node].count
        # Nodes that nothing hangs on any more go, and with them words that no edge carries.
        while node and self.nodes[node].bound_count == 0 and not (
            self.nodes[node].star or self.nodes[node].hash or self.nodes[node].exact
        ):
            parent = self.nodes[node].parent
            word = words.pop()
            if self.nodes[node].word == WORD_STAR:
                self.nodes[parent].star = 0
            elif self.nodes[node].word == WORD_HASH:
                self.nodes[parent].hash = 0
            else:
                integer_map_remove(&self.children, (<uint64_t>(parent + 1) << 32) | self.nodes[node].word)
                self.nodes[parent].exact -= 1
                self.nodes[parent].only_word = 0
                found = byte_map_find(&self.words, word, len(word))
                found[0] -= <uint64_t>1 << 32
                if (found[0] >> 32) == 0:
                    self.free_words.append(self.nodes[node].word)
                    byte_map_remove(&self.words, word, len(word))
            self.nodes[node].parent = self.free_node
            self.free_node = node
            node = parent
        return 0

    cdef int enter(self, uint32_t node, Destinations into) except -1:
        """The words read so far lead to `node`. 1 when that alone took destinations."""
        cdef Node* at = &self.nodes[node]
        if at.entered == self.step:
            return 0
        at.entered = self.step
        self.reached_next[self.next_count] = node
        self.next_count += 1
        return self.open_hash(at.hash, into) if at.hash else 0

    cdef int open_hash(self, uint32_t node, Destinations into) except -1:
        """The words read so far lead to a `#`: it matches from here to the end of the key. 1 when it took destinations."""
        cdef Node* at = &self.nodes[node]
        cdef Node* above
        cdef Waiting* waiting
        if at.entered == self.current_match:
            return 0
        at.entered = self.current_match
        if at.only_word and not at.star:
            waiting = &self.waiting[at.only_word]
            at.next_waiting = waiting.first if waiting.match == self.current_match else 0
            waiting.match = self.current_match
            waiting.first = node
            self.any_waiting = True
        elif at.star or at.exact:
            self.reached_next[self.next_count] = node
            self.next_count += 1
        above = &self.nodes[at.parent]
        # Up the path as long as it is the only way on: a `#` on it has nothing left to find but this one.
        while above.exact + (above.star != 0) + (above.hash != 0) == 1:
            if above.word == WORD_HASH:
                above.closed = self.current_match
                break
            if above.bound_count or above == &self.nodes[0]:
                break
            above = &self.nodes[above.parent]
        if at.bound_count:
            into.add_all(&self.bound[node])
            return 1
        return 0

    cdef int route(self, const Subject* subject, Destinations into) except -1:
        cdef const uint8_t* word = subject.key
        cdef const uint8_t* end = subject.key + subject.key_size
        cdef const uint8_t* dot
        cdef uint64_t* found
        cdef uint32_t* swapped
        cdef uint32_t count, at, word_id, waits
        cdef uint64_t below
        cdef Node* node
        cdef int matched
        cdef bint more = subject.key_size > 0
        self.current_match += 1
        self.step += 1
        self.next_count = 0
        self.any_waiting = False
        matched = self.enter(0, into)
        while True:
            swapped = self.reached
            self.reached = self.reached_next
            self.reached_next = swapped
            count = self.next_count
            if not more or (count == 0 and not self.any_waiting):
                break
            dot = <const uint8_t*>memchr(word, c".", end - word) if word < end else NULL
            if dot == NULL:
                dot = end
                more = False
            found = byte_map_find(&self.words, word, dot - word)
            word_id = <uint32_t>found[0] if found != NULL else 0
            word = dot + 1
            self.step += 1
            self.next_count = 0
            # Taken before anything is reached: what begins to wait for this word now goes on when it comes again.
            waits = self.waiting[word_id].first if word_id and self.waiting[word_id].match == self.current_match else 0
            for at in range(count):
                node = &self.nodes[self.reached[at]]
                if node.word == WORD_HASH:
                    if node.closed == self.current_match:
                        continue
                    self.reached_next[self.next_count] = self.reached[at]
                    self.next_count += 1
                if node.only_word:
                    if node.only_word == word_id:
                        matched |= self.enter(node.only_child, into)
                elif node.exact and word_id:
                    below = (<uint64_t>(self.reached[at] + 1) << 32) | word_id
                    found = integer_map_find(&self.children, below)
                    if found != NULL:
                        matched |= self.enter(<uint32_t>found[0], into)
                if node.star:
                    matched |= self.enter(node.star, into)
            while waits:
                node = &self.nodes[waits]
                if node.closed != self.current_match:
                    matched |= self.enter(node.only_child, into)
                waits = node.next_waiting
        for at in range(count):
            node = &self.nodes[self.reached[at]]
            if node.bound_count and node.word != WORD_HASH:
                into.add_all(&self.bound[self.reached[at]])
                matched = 1
        return matched
