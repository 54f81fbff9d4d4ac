"""The publishing half of a channel: basic.publish and its content come in, messages go out, confirms and returns come back.

Its connection calls it for every frame of a publish. It makes the message, finds out what its properties ask of the broker, and sends it
where it belongs: the default exchange's to its queue, here or on another worker, all others to the router. What is to be answered is kept
by `confirms`; answers are written once a turn. `Channel` adds the delivering half; nothing here knows of consumers.

Included by channel.pyx, with which it is one module: a base class cannot live in another module that names this one in turn.
"""

cdef enum:
    NAME_SIZE_MAX = 255
    KEY_AT = 256                    # where the routing key begins in `names`
    PUBLISH_BIT_MANDATORY = 1
    PUBLISH_BIT_IMMEDIATE = 2
    REPLY_TO_SIZE = 21

cdef const char* REPLY_TO = "amq.rabbitmq.reply-to"
EXPIRATION_MS_MAX = 315_360_000_000     # ten years


cdef bint is_ascii(const uint8_t* text, size_t size) noexcept nogil:
    cdef size_t at
    cdef uint8_t seen = 0
    for at in range(size):
        seen |= text[at]
    return seen < 0x80


cdef int check_utf8(const uint8_t* text, size_t size) except -1:
    """Names are UTF-8 (RabbitMQ 4: 501). Nearly all are ASCII, which costs a glance."""
    if not is_ascii(text, size):
        try:
            (<const char*>text)[:size].decode("utf-8")
        except UnicodeDecodeError:
            raise FrameError("Malformed UTF-8 in shortstr") from None
    return 0


cdef bint is_expiration(const uint8_t* text, size_t size) noexcept nogil:
    """A number of milliseconds of at most ten years, in decimal digits."""
    cdef uint64_t value = 0
    cdef size_t at
    if size == 0 or size > 12:
        return False
    for at in range(size):
        if text[at] < 48 or text[at] > 57:
            return False
        value = value * 10 + text[at] - 48
    return value <= <uint64_t>315360000000ULL


BAD_EXPIRATION_SIZE = len("invalid expiration '': ")


cdef object bad_expiration(bytes expiration):
    """The PreconditionFailed, in RabbitMQ's words."""
    text = expiration.decode("utf-8", "replace")
    digits = re.match(r"[+-]?[0-9]+", text)
    if digits is None:
        reason = "no_integer"
    elif digits.end() < len(text):
        reason = f'{{leftover_string,"{text[digits.end():]}"}}'
    elif int(digits[0]) < 0:
        reason = f"{{value_negative,{int(digits[0])}}}"
    elif int(digits[0]) > EXPIRATION_MS_MAX:
        reason = f"{{value_too_large,{int(digits[0])}}}"
        if BAD_EXPIRATION_SIZE + len(text) + len(reason) > 80:      # Erlang folds what it prints at 80 columns
            reason = reason.replace(",", ",\n" + " " * (BAD_EXPIRATION_SIZE + len(text) + 1))
    else:
        return None
    return PreconditionFailed(f"invalid expiration '{text}': {reason}")


cdef uint16_t count_keys(bytes keys) except? 0:
    """How many routing keys, each with its size before it, `keys` holds; None: none."""
    cdef size_t at = 0
    cdef uint16_t count = 0
    if keys is None:
        return 0
    while at < <size_t>len(keys):
        at += 1 + keys[at]
        count += 1
    return count


cdef object undecodable(const uint8_t* payload, size_t size):
    """The FrameError, in RabbitMQ's words, for a method whose arguments are cut short or too long."""
    return FrameError(f"cannot decode {numbered_bytes(payload[4:min(size, <size_t>260)])}")

cdef class Publisher(Ending):
    """The base of `Channel`, which fills in connection, state and id."""

    def __dealloc__(self):
        free(self.names)
        if self.message != NULL:
            message_release(self.message)

    @property
    def worker(self):
        """What cold methods need: links, settings, directory."""
        return self.connection.worker

    @property
    def unconfirmed_count(self):
        return self.confirms.unsettled if self.confirming else 0

    # --- frames in

    cdef int on_publish(self, const uint8_t* payload, size_t size) except -1:
        cdef Cursor at
        cdef uint8_t exchange_size, key_size, bits
        cdef const uint8_t* exchange
        cdef const uint8_t* key
        at.at = payload + 6                 # class, method, reserved
        at.end = payload + size
        at.failed = size < 6
        if at.failed:
            at.at = at.end
        exchange_size = cursor_u8(&at)
        exchange = cursor_take(&at, exchange_size)
        key_size = cursor_u8(&at)
        key = cursor_take(&at, key_size)
        bits = cursor_u8(&at)
        if at.failed or cursor_left(&at):
            raise undecodable(payload, size)
        if self.names == NULL:
            self.names = <uint8_t*>malloc(2 * KEY_AT)
            if self.names == NULL:
                raise MemoryError
            self.connection.published_on()
            self.exchange_size = 0
            self.exchange_version = 0
        if exchange_size != self.exchange_size or memcmp(exchange, self.names, exchange_size) != 0:
            check_utf8(exchange, exchange_size)
            memcpy(self.names, exchange, exchange_size)
            self.exchange_size = exchange_size
            self.exchange_version = 0
        if key_size != self.key_size or memcmp(key, self.names + KEY_AT, key_size) != 0:
            check_utf8(key, key_size)
            memcpy(self.names + KEY_AT, key, key_size)
            self.key_size = key_size
            self.queue_version = 0
        self.message_flags = MESSAGE_MANDATORY if bits & PUBLISH_BIT_MANDATORY else 0
        if bits & PUBLISH_BIT_IMMEDIATE:
            self.message_flags |= MESSAGE_IMMEDIATE
        if self.exchange_version != self.state.directory.version:
            self.check_exchange()
        self.method_size = <uint32_t>size
        self.expects = EXPECTS_HEADER
        return 0

    cdef int check_exchange(self) except -1:
        """May the user publish to the exchange, and is it there? The verdict holds until the directory changes."""
        cdef str name = (<const char*>self.names)[:self.exchange_size].decode("utf-8")
        cdef Connection connection = self.connection
        self.exchange = None
        self.worker.check_permission(connection, "write", "exchange", name)
        if name:
            self.exchange = connection.vhost.find_exchange(self.names, self.exchange_size)
            if self.exchange is None:
                raise NotFound(f"no exchange '{name}' in vhost '{connection.vhost.name}'")
            if self.exchange.internal:
                raise AccessRefused(f"cannot publish to internal {self.exchange}")
        self.exchange_version = self.state.directory.version
        return 0

    cdef int on_header(self, const uint8_t* payload, size_t size) except -1:
        cdef PropertiesView view
        cdef const uint8_t* properties
        cdef uint32_t properties_size
        cdef uint64_t body_size
        cdef size_t body_at
        cdef Message* message = NULL
        cdef int fault
        if self.expects != EXPECTS_HEADER:
            if self.expects == EXPECTS_BODY:
                raise UnexpectedFrame("expected content body, got non content body frame instead")
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if size < 14:
            self.connection.failed_method = 0
            raise FrameError(f"{shown_frame(FRAME_HEADER, payload, size, size)}: unknown_frame")
        if load_u16(payload) != CLASS_BASIC:
            raise UnexpectedFrame(f"expected content header for class 60, got one for class {load_u16(payload)} instead")
        if load_u16(payload + 2) != 0:      # weight: RabbitMQ knows no other header than one of weight 0
            raise UnexpectedFrame("expected content header for class 60, got non content header frame instead")
        self.expects = EXPECTS_METHOD       # should anything below be refused
        body_size = load_u64(payload + 4)
        if body_size > self.state.message_size_max:
            raise PreconditionFailed(
                f"message size {body_size} is larger than configured max size {self.state.message_size_max}")
        fault = view_properties(payload + 12, size - 12, &view)
        if fault != PROPERTIES_OK:
            raise properties_error(fault)
        if view.delivery_mode == 2:
            self.message_flags |= MESSAGE_PERSISTENT
        properties = payload + 12
        properties_size = <uint32_t>(size - 12)
        self.further_count = 0
        if view.flags & (HAS_USER_ID | HAS_EXPIRATION | HAS_REPLY_TO | HAS_HEADERS):
            self.apply_properties(properties, properties_size, &view)
            if self.rewritten is not None:
                properties = <const uint8_t*>PyBytes_AS_STRING(self.rewritten)
                properties_size = <uint32_t>PyBytes_GET_SIZE(self.rewritten)
        self.header_size = <uint32_t>size
        if self.connection.offered != NULL:
            body_at = MESSAGE_HEAD_SIZE + self.exchange_size + self.key_size + properties_size
            message = self.connection.take_offered(body_at + body_size, body_at)
        if message != NULL:
            message_fill(
                message, self.names, self.exchange_size, self.names + KEY_AT, self.key_size,
                properties, properties_size, <uint32_t>body_size, self.message_flags)
        else:
            message = message_new(
                self.names, self.exchange_size, self.names + KEY_AT, self.key_size,
                properties, properties_size, <uint32_t>body_size, self.message_flags)
            if message == NULL:
                raise MemoryError
        self.message = message
        self.filled = 0
        if body_size == 0:
            return self.finish_publish()
        self.expects = EXPECTS_BODY
        return 0

    cdef int apply_properties(self, const uint8_t* properties, size_t size, PropertiesView* view) except -1:
        """The rules for properties that mean something to the broker; leaves `rewritten` and `further_keys`."""
        cdef uint8_t tag
        cdef size_t value_size, at
        self.rewritten = None
        if view.flags & HAS_REPLY_TO:
            self.connection.awaited = True
        if view.flags & HAS_REPLY_TO and view.reply_to.size == REPLY_TO_SIZE and memcmp(view.reply_to.data, REPLY_TO, REPLY_TO_SIZE) == 0:
            if self.reply_name is None:
                raise PreconditionFailed("fast reply consumer does not exist")
            at = view.reply_to.data - properties
            self.rewritten = properties[:at - 1] + bytes([len(self.reply_name)]) + self.reply_name + properties[at + REPLY_TO_SIZE:size]
        if view.flags & HAS_USER_ID:
            self.check_user_id(view.user_id.data[:view.user_id.size])
        if view.flags & HAS_EXPIRATION:
            self.message_flags |= MESSAGE_EXPIRES
            if not is_expiration(view.expiration.data, view.expiration.size):
                error = bad_expiration(view.expiration.data[:view.expiration.size])
                if error is not None:   # such as "+5" or "0007…": odd, and a number all the same
                    raise error
        if view.flags & HAS_HEADERS and (
                find_in_table(view.headers, view.headers_size, "CC", 2, &tag, &value_size) != NULL
                or find_in_table(view.headers, view.headers_size, "BCC", 3, &tag, &value_size) != NULL):
            self.further_keys, self.further_count, self.rewritten = further_keys(
                self.rewritten if self.rewritten is not None else properties[:size])
        return 0

    def check_user_id(self, bytes user_id):
        """user_id is the sender's own name, unless it may speak for others (tag impersonator)."""
        session = self.connection.session
        if user_id != session.user_bytes and not session.impersonator:
            raise PreconditionFailed(
                f"user_id property set to '{user_id.decode('utf-8', 'replace')}' but authenticated user was '{self.connection.user}'")

    cdef int on_body(self, const uint8_t* payload, size_t size) except -1:
        cdef Message* message = self.message
        if self.expects != EXPECTS_BODY:
            if self.expects == EXPECTS_HEADER:
                raise UnexpectedFrame("expected content header for class 60, got non content header frame instead")
            raise UnexpectedFrame("expected method frame, got non method frame instead")
        if size > message.body_size - self.filled:
            raise FrameError("content body frame exceeds remaining content size")
        if payload != message_body(message) + self.filled:      # else it has landed there
            memcpy(message_body(message) + self.filled, payload, size)
        self.filled += <uint32_t>size
        if self.filled == message.body_size:
            return self.finish_publish()
        return 0

    cdef int finish_publish(self) except -1:
        cdef Message* message = self.message
        self.message = NULL
        self.expects = EXPECTS_METHOD
        self.published += 1
        self.state.published += 1
        if self.tracked() or message.flags & (MESSAGE_MANDATORY | MESSAGE_IMMEDIATE):
            self.connection.awaited = True
        self.connection.unawaited += 1
        try:
            if self.transaction is not None:
                self.transaction.add(message, self.exchange, self.further_keys if self.further_count else None)
            else:
                self.publish(message)
        finally:
            message_release(message)
        if self.connection.flowing:
            self.connection.flow_left -= 1
            if self.connection.flow_left <= 0:
                self.connection.pause(PAUSED_FLOW)
        return 0

    # --- on its way

    cdef int publish(self, Message* message) except -1:
        cdef uint8_t flags = 0
        cdef uint64_t publish_no = 0
        cdef uint32_t open_flags = AWAITS_VERDICT | ROUTED
        cdef bint returnable = message.flags & (MESSAGE_MANDATORY | MESSAGE_IMMEDIATE)
        if self.exchange is None:
            return self.publish_by_default(message)
        self.routed = True
        if returnable or self.tracked():
            flags = PUBLISH_WANTS_VERDICT
            if returnable:
                message_retain(message)
            if message.flags & MESSAGE_IMMEDIATE:
                open_flags |= IMMEDIATE
            publish_no = self.need_confirms().open(0, open_flags, message if returnable else NULL)
        return self.state.router.send_publish(
            self.connection, self.exchange.id, self.ref, publish_no, flags, self.further_keys, self.further_count, message)

    cdef bint tracked(self) noexcept:
        """Whether it matters when a publish has been taken: for a confirm, or for a commit."""
        return self.confirming or self.transaction is not None

    cdef int publish_by_default(self, Message* message) except -1:
        """To the queue that the routing key names."""
        cdef QueueEntry queue
        cdef uint64_t publish_no = 0
        cdef void* found
        cdef bint tracked = self.tracked()
        cdef bint immediate = message.flags & MESSAGE_IMMEDIATE
        cdef int stored
        if self.further_count:
            return self.publish_to_many(message)
        if self.queue_version != self.state.directory.version:
            found = self.connection.vhost.find_queue(message_routing_key(message), message.routing_key_size)
            self.queue = <QueueEntry>found if found != NULL else None
            self.queue_version = self.state.directory.version
        queue = self.queue
        if queue is None:
            if (message.routing_key_size > REPLY_TO_SIZE and memcmp(message_routing_key(message), REPLY_TO, REPLY_TO_SIZE) == 0
                    and self.state.reply(message_routing_key(message), message.routing_key_size, message)):
                return self.settled_at_once(tracked)    # as in RabbitMQ 4.2, a reply counts as routed even if nobody waits for it
            return self.unroutable(message)
        if queue.local is not None:
            if immediate:
                stored = queue.local.offer(message) - 1
                if stored < 0:
                    self.write_return(message, 313, b"NO_CONSUMERS")
            else:
                stored = queue.local.publish(message)
                if stored & PUBLISH_REFUSED:
                    return self.refused_at_once(tracked)
                if (<ShardQueue>queue.local).is_behind():
                    self.connection.slow_down()
            if tracked and stored > 0:
                return self.settled_by_commit()
            return self.settled_at_once(tracked)
        if immediate:
            message_retain(message)
            publish_no = self.need_confirms().open(<uint64_t>1 << queue.worker, IMMEDIATE, message)
        elif tracked:
            publish_no = self.need_confirms().open(<uint64_t>1 << queue.worker, 0, NULL)
        count_far(self.connection, queue.worker, message.body_size)
        return (<Neighbour>self.state.workers[queue.worker]).send_enqueue(
            self.connection, queue.id, self.ref, publish_no, ENQUEUE_WANTS_CONFIRM if publish_no else 0, message)

    cdef int settled_at_once(self, bint tracked) except -1:
        if tracked:
            self.need_confirms().open_settled()
            return self.state.poller.want_ending(self)
        return 0

    cdef int settled_by_commit(self) except -1:
        """The message is in a queue of this worker that keeps it on disk: answered when it is there."""
        cdef int index = self.state.index
        return self.state.committer.wait_for(index, self.ref, self.need_confirms().open(<uint64_t>1 << index, 0, NULL))

    cdef int refused_at_once(self, bint tracked) except -1:
        """A queue of this worker is full, and no other has to be waited for."""
        cdef uint64_t publish_no
        if tracked:
            publish_no = self.need_confirms().open(<uint64_t>1 << self.state.index, 0, NULL)
            self.answer(publish_no, <uint64_t>1 << self.state.index, True, True)
        return 0

    cdef int publish_to_many(self, Message* message) except -1:
        """By the default exchange to every queue that the routing key, CC or BCC names; once to each."""
        cdef QueueEntry queue
        cdef const uint8_t* at = <const uint8_t*>PyBytes_AS_STRING(self.further_keys)
        cdef void* found = self.connection.vhost.find_queue(message_routing_key(message), message.routing_key_size)
        cdef uint16_t index
        cdef uint64_t workers = 0
        cdef uint64_t publish_no = 0
        cdef uint64_t here = 0              # our own bit, if the message waits for a commit of ours
        cdef int stored
        cdef bint taken = False
        cdef bint refused = False
        cdef dict queues = {}
        cdef dict elsewhere = {}            # worker -> its queues' ids
        if found != NULL:
            queues[(<QueueEntry>found).id] = <QueueEntry>found
        for index in range(self.further_count):
            found = self.connection.vhost.find_queue(at + 1, at[0])
            if found != NULL:
                queues[(<QueueEntry>found).id] = <QueueEntry>found
            at += 1 + at[0]
        if not queues:
            return self.unroutable(message)
        for queue in queues.values():
            if queue.local is None:
                workers |= <uint64_t>1 << queue.worker
                elsewhere.setdefault(queue.worker, []).append(queue.id)
                continue
            if message.flags & MESSAGE_IMMEDIATE:
                stored = queue.local.offer(message) - 1
                taken |= stored >= 0
            else:
                stored = queue.local.publish(message)
                refused |= stored & PUBLISH_REFUSED
                stored &= PUBLISH_STORED
                taken = True
            if stored > 0 and self.tracked():
                here = <uint64_t>1 << self.state.index
        if workers == 0:
            if not taken:
                self.write_return(message, 313, b"NO_CONSUMERS")
            if refused:
                return self.refused_at_once(self.tracked())
            return self.settled_by_commit() if here else self.settled_at_once(self.tracked())
        if message.flags & MESSAGE_IMMEDIATE:
            message_retain(message)
            publish_no = self.need_confirms().open(workers | here, IMMEDIATE | (TAKEN if taken else 0), message)
        elif self.tracked():
            publish_no = self.need_confirms().open(workers | here, REFUSED if refused else 0, NULL)
        if here:
            self.state.committer.wait_for(self.state.index, self.ref, publish_no)
        self.connection.far_workers |= workers & ~here
        for worker, queue_ids in elsewhere.items():
            (<Neighbour>self.state.workers[worker]).send_enqueue_many(
                self.connection, queue_ids, self.ref, publish_no, ENQUEUE_WANTS_CONFIRM if publish_no else 0, message)
        return 0

    cdef int unroutable(self, Message* message) except -1:
        """Nobody takes it: returned if mandatory, and then confirmed like any other."""
        self.give_back(message)
        return self.settled_at_once(self.tracked())

    cdef int give_back(self, Message* message) except -1:
        """No queue was found for it."""
        if message.flags & MESSAGE_MANDATORY:
            return self.write_return(message, 312, b"NO_ROUTE")
        if message.flags & MESSAGE_IMMEDIATE:
            return self.write_return(message, 313, b"NO_CONSUMERS")
        self.state.dropped += 1
        return 0

    cdef int write_return(self, Message* message, uint16_t code, bytes text) except -1:
        cdef uint8_t text_size = <uint8_t>PyBytes_GET_SIZE(text)
        cdef uint32_t method_size = <uint32_t>9 + text_size + message.exchange_size + message.routing_key_size
        cdef uint8_t* start
        cdef uint8_t* at
        if self.closing or self.connection.closed:
            return 0
        start = self.connection.reserve(FRAME_OVERHEAD + method_size + content_size(message.properties_size, 0, 0))
        at = start
        store_frame_head(at, FRAME_METHOD, self.id, method_size)
        store_u32(at + 7, METHOD_BASIC_RETURN)
        store_u16(at + 11, code)
        at[13] = text_size
        memcpy(at + 14, PyBytes_AS_STRING(text), text_size)
        at += 14 + text_size
        at[0] = message.exchange_size
        memcpy(at + 1, message_exchange(message), message.exchange_size)
        at += 1 + message.exchange_size
        at[0] = message.routing_key_size
        memcpy(at + 1, message_routing_key(message), message.routing_key_size)
        at += 1 + message.routing_key_size
        at[0] = FRAME_END
        at = store_content_header(at + 1, self.id, CLASS_BASIC, message.body_size, message_properties(message), message.properties_size)
        self.returned += 1
        self.state.returned += 1
        return self.connection.answered_with(self.id, message, at - start)

    cdef Confirms need_confirms(self):
        if self.confirms is None:
            self.confirms = Confirms()
        return self.confirms

    def select_confirms(self):
        """confirm.select: the next publish is number 1."""
        if not self.confirming:
            self.need_confirms().start()
            self.confirming = True

    cdef int verdict(self, uint64_t publish_no, uint64_t workers) except -1:
        cdef Publish* publish
        if self.confirms is None:
            return 0
        if workers == 0:
            publish = self.confirms.find(publish_no)
            if publish != NULL and publish.returned != NULL:
                self.give_back(publish.returned)
                publish.flags |= TAKEN      # it has been returned: once is enough
            else:
                self.state.dropped += 1
        self.confirms.verdict(publish_no, workers)
        return self.state.poller.want_ending(self)

    cdef int answer(self, uint64_t publish_no, uint64_t worker_bit, bint refused, bint taken) except -1:
        if self.confirms is None:
            return 0
        self.confirms.answer(publish_no, worker_bit, refused, taken)
        return self.state.poller.want_ending(self)

    cdef int at_turn_end(self) except -1:
        """Write the confirms that this turn has brought."""
        cdef size_t index
        cdef uint8_t* at
        cdef Confirms confirms = self.confirms
        cdef uint64_t told
        if confirms is None:
            return 0
        told = confirms.told
        confirms.collect()
        for index in range(confirms.untaken_count):
            self.write_return(confirms.untaken[index], 313, b"NO_CONSUMERS")
            message_release(confirms.untaken[index])
        confirms.untaken_count = 0
        if self.committed is not None and confirms.first > self.commit_through:
            self.finish_commit()
        if not self.confirming or self.closing or self.connection.closed:
            return 0
        for index in range(confirms.answers_count):
            at = self.connection.reserve(FRAME_OVERHEAD + 13)
            store_frame_head(at, FRAME_METHOD, self.id, 13)
            store_u32(at + 7, METHOD_BASIC_NACK if confirms.answers[index].nack else METHOD_BASIC_ACK)
            store_u64(at + 11, confirms.answers[index].tag)
            at[19] = confirms.answers[index].multiple
            at[20] = FRAME_END
            self.connection.answered(FRAME_OVERHEAD + 13)
        self.confirmed += confirms.told - told
        self.state.confirmed += confirms.told - told
        return 0

    def finish_commit(self):
        committed, self.committed = self.committed, None
        if not committed.done():
            committed.set_result(self.confirms.refusals - self.commit_refusals)

    cdef int throttle(self, int worker) except -1:
        """The router has more for that worker than it takes: publish no more until it is relieved."""
        self.connection.throttle(worker)
        self.state.throttled.setdefault(worker, set()).add(self.connection)
        return 0

    cdef int slow_down(self) except -1:
        """A queue that was published to is behind its consumers."""
        return self.connection.slow_down()

    cdef int drop_publish(self) except -1:
        """The channel closes: an unfinished message, a transaction and a commit that waits are let go."""
        self.expects = EXPECTS_METHOD
        if self.message != NULL:
            message_release(self.message)
            self.message = NULL
        if self.transaction is not None:
            self.transaction.clear()
        if self.committed is not None and not self.committed.done():
            self.committed.cancel()
        return 0
