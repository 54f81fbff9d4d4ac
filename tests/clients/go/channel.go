package main

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("channel close", func(c *check) {
	connection := c.dial()
	channel := c.channelOf(connection)
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	queue := c.queue(channel)
	deliveries := c.consume(channel, queue, false)
	c.publish(channel, "", queue, "held")
	await(c, "a delivery", deliveries)
	c.must(channel.Close())
	awaitClosed(c, "the notice", closed)
	awaitClosed(c, "the deliveries", deliveries)
	c.equal("publishing", channel.Publish("", queue, false, false, amqp.Publishing{}), amqp.ErrClosed)
	c.awaitReady("what it held is back", c.channelOf(connection), queue, 1)
})

var _ = feature("channel notify close", func(c *check) {
	connection := c.dial()
	channel := c.channelOf(connection)
	first, second := channel.NotifyClose(make(chan *amqp.Error, 1)), channel.NotifyClose(make(chan *amqp.Error, 1))
	exchange := c.name("nowhere")
	c.publish(channel, exchange, "k", "lost")
	text := "NOT_FOUND - no exchange '" + exchange + "' in vhost '/'"
	c.refused(await(c, "a notice", first), 404, text)
	c.refused(await(c, "a notice", second), 404, text)
	c.that("the connection goes on", !connection.IsClosed())
})

var _ = feature("flow pauses deliveries", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(channel) // on the worker of the paused channel: a queue elsewhere may have sent some ahead, which wait there
	deliveries := c.consume(channel, queue, true)
	c.publish(other, "", queue, "before")
	c.equal("before", bodies(c, deliveries, 1), "before")
	c.must(channel.Flow(false))
	c.publish(other, "", queue, "1", "2", "3")
	c.awaitReady("they wait in the queue", other, queue, 3)
	c.ready(channel, queue)
	none(c, "a delivery to a paused channel", deliveries)
	c.publish(channel, "", queue, "4") // a paused channel may publish
	c.awaitReady("and its own too", channel, queue, 4)
	c.must(channel.Flow(true))
	c.equal("after", bodies(c, deliveries, 4), "1 2 3 4")
	c.must(channel.Flow(true))
})

var _ = feature("flow of one channel leaves the others", func(c *check) {
	connection := c.dial()
	paused, running := c.channelOf(connection), c.channelOf(connection)
	queue := c.queue(running)
	held := c.consume(paused, queue, true)
	c.must(paused.Flow(false))
	deliveries := c.consume(running, queue, true)
	c.publish(running, "", queue, "1", "2", "3", "4")
	c.equal("all go to the running channel", bodies(c, deliveries, 4), "1 2 3 4")
	c.ready(paused, queue)
	none(c, "a delivery to the paused channel", held)
})

var _ = feature("flow true is always answered", func(c *check) {
	channel := c.channel()
	flow := channel.NotifyFlow(make(chan bool, 1))
	c.must(channel.Flow(true))
	c.must(channel.Flow(true))
	none(c, "the broker's own flow", flow)
	c.must(channel.Close())
	awaitClosed(c, "the listener", flow)
})

var _ = feature("qos count", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	c.publish(other, "", queue, "1", "2", "3", "4", "5")
	c.must(channel.Qos(2, 0, false))
	deliveries := c.consume(channel, queue, false)
	c.equal("first two", bodies(c, deliveries, 1), "1")
	second := await(c, "a delivery", deliveries)
	c.awaitReady("the rest waits", channel, queue, 3)
	none(c, "a third delivery", deliveries)
	c.must(second.Ack(false))
	c.equal("one for one", bodies(c, deliveries, 1), "3")
	c.awaitReady("the rest waits", channel, queue, 2)
	none(c, "one more delivery", deliveries)
})

var _ = feature("qos global", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(channel) // on the worker of its consumers: a queue elsewhere may send more ahead, which waits there
	c.must(channel.Qos(3, 0, true))
	first, second := c.consume(channel, queue, false), c.consume(channel, queue, false)
	c.publish(other, "", queue, "1", "2", "3", "4", "5", "6")
	// The tags of the next deliveries to either, added up: the library hands them over in no set order.
	tags := func(count int) (sum uint64) {
		for range make([]struct{}, count) {
			select {
			case delivery := <-first:
				sum += delivery.DeliveryTag
			case delivery := <-second:
				sum += delivery.DeliveryTag
			case <-time.After(within):
				c.fail("no delivery within %s", within)
			}
		}
		return sum
	}
	c.equal("the two share three", tags(3), uint64(1+2+3))
	c.ready(channel, queue)
	c.awaitReady("the rest waits", other, queue, 3)
	c.must(channel.Ack(2, true))
	c.equal("two in their place", tags(2), uint64(4+5))
	c.ready(channel, queue)
	c.awaitReady("the rest waits", other, queue, 1)
})

var _ = feature("qos size", func(c *check) {
	channel, other := c.channel(), c.channel()
	queue := c.queue(other)
	kilobyte := string(make([]byte, 1000))
	c.publish(other, "", queue, kilobyte, kilobyte, kilobyte, kilobyte)
	c.must(channel.Qos(0, 2500, false))
	deliveries := c.consume(channel, queue, false)
	first := await(c, "a delivery", deliveries)
	await(c, "a delivery", deliveries)
	c.awaitReady("a third would be too much", channel, queue, 2)
	none(c, "a third delivery", deliveries)
	c.must(first.Ack(false))
	await(c, "a delivery in its place", deliveries)
	c.awaitReady("one waits", channel, queue, 1)
	none(c, "a fourth delivery", deliveries)
})

var _ = feature("recover to the queue", func(c *check) {
	connection := c.dial()
	channel, other := c.channelOf(connection), c.channelOf(connection)
	queue := c.queue(channel)
	deliveries, err := channel.Consume(queue, "first", false, false, false, false, nil)
	c.must(err)
	c.publish(channel, "", queue, "1", "2")
	c.equal("held", bodies(c, deliveries, 2), "1 2")
	c.must(channel.Cancel("first", false))
	c.must(channel.Recover(true))
	again := c.consume(other, queue, true)
	delivery := await(c, "a delivery", again)
	c.that("it says so", delivery.Redelivered)
	c.equal("in their old order", string(delivery.Body)+" "+bodies(c, again, 1), "1 2")
})

var _ = feature("recover to the consumer", func(c *check) {
	connection := c.dial()
	channel, other := c.channelOf(connection), c.channelOf(connection)
	queue := c.queue(channel)
	deliveries := c.consume(channel, queue, false)
	c.publish(channel, "", queue, "1", "2")
	c.equal("held", bodies(c, deliveries, 2), "1 2")
	elsewhere := c.consume(other, queue, false)
	c.must(channel.Recover(false))
	delivery := await(c, "a delivery", deliveries)
	c.that("it says so", delivery.Redelivered)
	c.equal("to whom they had gone, in order", string(delivery.Body)+" "+bodies(c, deliveries, 1), "1 2")
	c.awaitReady("none went back to the queue", other, queue, 0)
	none(c, "a delivery elsewhere", elsewhere)
	c.must(channel.Ack(0, true))
	c.must(channel.Close())
	c.awaitReady("and they can be acked", other, queue, 0)
	none(c, "a delivery elsewhere", elsewhere)
})
