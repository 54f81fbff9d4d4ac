package main

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("consume with automatic acks", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	deliveries, err := channel.Consume(queue, "mine", true, false, false, false, amqp.Table{"x-unknown": "ignored"})
	c.must(err)
	c.publish(channel, "", queue, "1", "2", "3")
	for tag, body := range []string{"1", "2", "3"} {
		delivery := await(c, "a delivery", deliveries)
		c.equal("tag", []any{delivery.ConsumerTag, delivery.DeliveryTag}, []any{"mine", uint64(tag + 1)})
		c.equal("body", string(delivery.Body), body)
	}
	c.must(channel.Close())
	c.awaitReady("nothing comes back", c.channel(), queue, 0)
})

var _ = feature("consume without an answer", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	deliveries, err := channel.Consume(queue, "", true, false, false, true, nil)
	c.must(err)
	c.publish(channel, "", queue, "x")
	c.equal("delivered", bodies(c, deliveries, 1), "x")
})

var _ = feature("consume exclusively", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(channel)
	_, err := channel.Consume(queue, "", true, true, false, false, nil)
	c.must(err)
	_, err = other.Consume(queue, "", true, false, false, false, nil)
	c.refused(err, 403, "ACCESS_REFUSED - queue '"+queue+"' in vhost '/' in exclusive use")
})

var _ = feature("consume by priority", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	low := c.consume(channel, queue, true)
	high, err := channel.Consume(queue, "", true, false, false, false, amqp.Table{"x-priority": int32(5)})
	c.must(err)
	c.publish(channel, "", queue, "1", "2", "3", "4")
	c.equal("all go to the higher", bodies(c, high, 4), "1 2 3 4")
	c.ready(channel, queue)
	none(c, "a delivery to the lower", low)
})

var _ = feature("consume from a missing queue", func(c *check) {
	channel := c.channel()
	queue := c.name("nowhere")
	_, err := channel.Consume(queue, "", true, false, false, false, nil)
	c.refused(err, 404, "NOT_FOUND - no queue '"+queue+"' in vhost '/'")
})

// settled gives a channel that holds the messages 1 to 4 unacked, and its queue.
func settled(c *check) (*amqp.Channel, string) {
	channel := c.channel()
	queue := c.queue(channel)
	deliveries, err := channel.Consume(queue, "holder", false, false, false, false, nil)
	c.must(err)
	c.publish(channel, "", queue, "1", "2", "3", "4")
	c.equal("held", bodies(c, deliveries, 4), "1 2 3 4")
	c.must(channel.Cancel("holder", false))
	c.awaitReady("none is ready", channel, queue, 0)
	return channel, queue
}

// left closes the channel and gives what is in the queue then.
func left(c *check, channel *amqp.Channel, queue string) string {
	c.must(channel.Close())
	other := c.channel()
	count := c.ready(other, queue)
	return bodies(c, c.consume(other, queue, true), count)
}

var _ = feature("ack", func(c *check) {
	channel, queue := settled(c)
	c.must(channel.Ack(2, false))
	c.equal("the others come back", left(c, channel, queue), "1 3 4")
	channel, queue = settled(c)
	c.must(channel.Ack(3, true))
	c.equal("with multiple, all up to it are gone", left(c, channel, queue), "4")
	channel, queue = settled(c)
	c.must(channel.Ack(0, true))
	c.equal("tag 0 is all of them", left(c, channel, queue), "")
})

var _ = feature("nack", func(c *check) {
	channel, queue := settled(c)
	c.must(channel.Nack(2, false, false))
	c.equal("one is thrown away", left(c, channel, queue), "1 3 4")
	channel, queue = settled(c)
	c.must(channel.Nack(3, true, false))
	c.equal("three are thrown away", left(c, channel, queue), "4")
	channel, queue = settled(c)
	c.must(channel.Nack(2, true, true))
	c.awaitReady("two are ready again", channel, queue, 2)
	c.equal("in their old place", left(c, channel, queue), "1 2 3 4")
})

var _ = feature("reject", func(c *check) {
	channel, queue := settled(c)
	c.must(channel.Reject(1, false))
	c.must(channel.Reject(4, true))
	c.awaitReady("one is ready again", channel, queue, 1)
	delivery, ok, err := channel.Get(queue, true)
	c.must(err)
	c.equal("redelivered", []any{ok, string(delivery.Body), delivery.Redelivered}, []any{true, "4", true})
	c.equal("one is gone", left(c, channel, queue), "2 3")
})

var _ = feature("ack is refused", func(c *check) {
	for _, settle := range []func(*amqp.Channel) error{
		func(channel *amqp.Channel) error { return channel.Ack(7, false) },
		func(channel *amqp.Channel) error { return channel.Nack(7, false, true) },
		func(channel *amqp.Channel) error { return channel.Reject(7, true) },
	} {
		channel := c.channel()
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		c.must(settle(channel))
		c.refused(await(c, "the channel's end", closed), 406, "PRECONDITION_FAILED - unknown delivery tag 7")
	}
})

var _ = feature("cancel", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	deliveries, err := channel.Consume(queue, "mine", true, false, false, false, nil)
	c.must(err)
	c.must(channel.Cancel("mine", false))
	awaitClosed(c, "the deliveries", deliveries)
	c.publish(channel, "", queue, "stays")
	c.awaitReady("nobody takes it", channel, queue, 1)
	c.must(channel.Cancel("never heard of", false))
	deliveries, err = channel.Consume(queue, "mine", true, false, false, false, nil)
	c.must(err)
	c.equal("delivered after all", bodies(c, deliveries, 1), "stays")
	c.must(channel.Cancel("mine", true))
	c.publish(channel, "", queue, "stays too")
	c.awaitReady("and without an answer", channel, queue, 1)
})

var _ = feature("notify cancel", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	cancelled := channel.NotifyCancel(make(chan string, 1))
	deliveries, err := channel.Consume(queue, "mine", true, false, false, false, nil)
	c.must(err)
	_, err = other.QueueDelete(queue, false, false, false)
	c.must(err)
	c.equal("cancelled", await(c, "the notice", cancelled), "mine")
	awaitClosed(c, "the deliveries", deliveries)
	c.equal("the channel lives", c.ready(channel, c.queue(channel)), 0)
})

var _ = feature("get", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	_, ok, err := channel.Get(queue, true)
	c.must(err)
	c.equal("an empty queue", ok, false)
	c.publish(channel, "", queue, "1", "2", "3")
	delivery, ok, err := channel.Get(queue, false)
	c.must(err)
	c.equal("first", []any{ok, string(delivery.Body), delivery.MessageCount}, []any{true, "1", uint32(2)})
	c.must(delivery.Nack(false, true))
	delivery, _, err = channel.Get(queue, true)
	c.must(err)
	c.equal("again", []any{string(delivery.Body), delivery.Redelivered, delivery.MessageCount}, []any{"1", true, uint32(2)})
	c.awaitReady("the rest", channel, queue, 2)
	missing := c.name("nowhere")
	_, _, err = channel.Get(missing, true)
	c.refused(err, 404, "NOT_FOUND - no queue '"+missing+"' in vhost '/'")
})
