package main

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("tx commit", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	c.must(channel.Tx())
	c.publish(channel, "", queue, "1", "2")
	c.awaitReady("nobody sees them yet", channel, queue, 0)
	c.must(channel.TxCommit())
	c.awaitReady("all are there", other, queue, 2)
	c.must(channel.TxCommit()) // an empty one
	c.publish(channel, "", queue, "3")
	c.must(channel.TxCommit())
	c.equal("in order", bodies(c, c.consume(other, queue, true), 3), "1 2 3")
})

var _ = feature("tx rollback", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	c.must(channel.Tx())
	c.publish(channel, "", queue, "never")
	c.must(channel.TxRollback())
	c.publish(channel, "", queue, "kept")
	c.must(channel.TxCommit())
	c.publish(channel, "", queue, "lost with the channel")
	c.must(channel.Close())
	c.equal("only what was committed", bodies(c, c.consume(other, queue, true), 1), "kept")
	c.awaitReady("no more", other, queue, 0)
})

var _ = feature("tx holds acks", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	c.publish(other, "", queue, "1", "2", "3")
	c.awaitReady("ready", other, queue, 3)
	c.must(channel.Tx())
	deliveries, err := channel.Consume(queue, "mine", false, false, false, false, nil)
	c.must(err)
	c.equal("held", bodies(c, deliveries, 3), "1 2 3")
	c.must(channel.Cancel("mine", false))
	c.must(channel.Ack(1, false))
	c.must(channel.TxRollback())
	c.must(channel.Ack(1, false)) // so it is still there to be acked
	c.must(channel.Ack(2, false))
	c.must(channel.TxCommit())
	c.must(channel.Ack(3, false))
	c.must(channel.Close()) // before its commit
	delivery := await(c, "what comes back", c.consume(other, queue, true))
	c.equal("only the uncommitted", []any{string(delivery.Body), delivery.Redelivered}, []any{"3", true})
	c.awaitReady("no more", other, queue, 0)
})

var _ = feature("tx and confirms exclude each other", func(c *check) {
	channel := c.channel()
	c.must(channel.Tx())
	c.refused(channel.Confirm(false), 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")
	channel = c.channel()
	c.must(channel.Confirm(false))
	c.refused(channel.Tx(), 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")
	c.refused(c.channel().TxCommit(), 406, "PRECONDITION_FAILED - channel is not transactional")
	c.refused(c.channel().TxRollback(), 406, "PRECONDITION_FAILED - channel is not transactional")
})

var _ = feature("tx returns what it cannot route", func(c *check) {
	channel := c.channel()
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	c.must(channel.Tx())
	c.must(channel.Publish("amq.direct", c.name("nowhere"), true, false, amqp.Publishing{Body: []byte("back")}))
	c.must(channel.TxCommit())
	c.equal("returned", string(await(c, "the return", returned).Body), "back")
})
