package main

import (
	"math"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("publish carries everything", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	sent := amqp.Publishing{
		Headers: amqp.Table{
			"text": "grün", "true": true, "short": int16(-300), "int": int32(math.MinInt32), "long": int64(math.MaxInt64),
			"float": float32(1.5), "double": math.Pi, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "bytes": []byte{0, 255},
			"time": time.Unix(1_700_000_000, 0).UTC(), "void": nil, "table": amqp.Table{"k": "v"}, "array": []interface{}{int32(1), "x", nil},
		},
		ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent, Priority: 7, CorrelationId: "c", ReplyTo: "r",
		Expiration: "60000", MessageId: "m", Timestamp: time.Unix(1_700_000_000, 0), Type: "t", UserId: "guest", AppId: "a",
		Body: []byte("body"),
	}
	c.must(channel.Publish("", queue, false, false, sent))
	got := await(c, "the delivery", c.consume(channel, queue, true))
	table := got.Headers
	table["time"] = table["time"].(time.Time).UTC()
	c.equal("headers", table, sent.Headers)
	got.Headers, sent.Headers = nil, nil
	c.equal("properties", amqp.Publishing{
		ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, DeliveryMode: got.DeliveryMode, Priority: got.Priority,
		CorrelationId: got.CorrelationId, ReplyTo: got.ReplyTo, Expiration: got.Expiration, MessageId: got.MessageId,
		Timestamp: got.Timestamp, Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body,
	}, sent)
	c.equal("exchange, key, redelivered", []any{got.Exchange, got.RoutingKey, got.Redelivered}, []any{"", queue, false})
})

var _ = feature("confirm", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	c.must(channel.Confirm(false))
	c.must(channel.Confirm(false)) // asking twice is harmless
	confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, 100))
	ack, nack := channel.NotifyConfirm(make(chan uint64, 100), make(chan uint64, 100))
	for range make([]struct{}, 50) {
		c.publish(channel, "", queue, "routed")
		c.publish(channel, "amq.direct", c.name("nowhere"), "unroutable is acked too")
	}
	for tag := uint64(1); tag <= 100; tag++ {
		c.equal("confirmed", await(c, "a confirm", confirmed), amqp.Confirmation{DeliveryTag: tag, Ack: true})
		c.equal("acked", await(c, "an ack", ack), tag)
	}
	none(c, "a nack", nack)
	c.awaitReady("what is confirmed is there", channel, queue, 50)
})

var _ = feature("mandatory is returned", func(c *check) {
	channel := c.channel()
	c.must(channel.Confirm(false))
	order := make(chan string, 10) // fed by the library's one reader, so in the order of arrival
	returned, confirmed := channel.NotifyReturn(make(chan amqp.Return)), channel.NotifyPublish(make(chan amqp.Confirmation))
	var back amqp.Return
	go func() {
		for {
			select {
			case back = <-returned:
				order <- "returned"
			case confirm, open := <-confirmed:
				if !open {
					return
				}
				if confirm.Ack {
					order <- "acked"
				}
			}
		}
	}()
	for _, exchange := range []string{"", "amq.topic"} {
		key := c.name("nowhere")
		c.must(channel.Publish(exchange, key, true, false, amqp.Publishing{Body: []byte("back"), MessageId: "m"}))
		c.equal("first", await(c, "the return", order), "returned")
		c.equal("then", await(c, "the confirm", order), "acked")
		c.equal("reply", []any{back.ReplyCode, back.ReplyText, back.Exchange, back.RoutingKey}, []any{uint16(312), "NO_ROUTE", exchange, key})
		c.equal("content", []string{string(back.Body), back.MessageId}, []string{"back", "m"})
	}
	queue := c.queue(channel)
	c.must(channel.Publish("", queue, true, false, amqp.Publishing{}))
	c.equal("one with a queue is only confirmed", await(c, "the confirm", order), "acked")
})

var _ = feature("immediate is returned without a consumer", func(c *check) {
	channel := c.channel()
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	queue := c.queue(channel)
	c.must(channel.Confirm(false))
	confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, 1))
	c.must(channel.Publish("", queue, false, true, amqp.Publishing{Body: []byte("now or never")}))
	back := await(c, "the return", returned)
	c.equal("reply", []any{back.ReplyCode, back.ReplyText, back.Exchange, back.RoutingKey}, []any{uint16(313), "NO_CONSUMERS", "", queue})
	c.equal("content", string(back.Body), "now or never")
	c.that("acked", await(c, "the confirm", confirmed).Ack)
	c.awaitReady("the queue has nothing of it", channel, queue, 0)
})

var _ = feature("immediate is delivered to a consumer", func(c *check) {
	channel, consumer := c.channel(), c.channel()
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	queue := c.queue(channel)
	for range make([]struct{}, 10) {
		// At once after consume-ok, though the queue, its consumer and the publisher may be on three workers.
		deliveries, err := consumer.Consume(queue, "mine", true, false, false, false, nil)
		c.must(err)
		c.must(channel.Publish("", queue, false, true, amqp.Publishing{Body: []byte("now")}))
		c.equal("delivered", bodies(c, deliveries, 1), "now")
		c.must(consumer.Cancel("mine", false))
	}
	c.ready(channel, queue)
	none(c, "a return", returned)
})

var _ = feature("publish is refused", func(c *check) {
	for _, refusal := range []struct {
		exchange   string
		publishing amqp.Publishing
		code       int
		text       string
	}{
		{"nowhere", amqp.Publishing{}, 404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'"},
		{"", amqp.Publishing{UserId: "somebody"}, 406,
			"PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'"},
	} {
		channel := c.channel()
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		c.must(channel.Publish(refusal.exchange, "k", false, false, refusal.publishing))
		c.refused(await(c, "the channel's end", closed), refusal.code, refusal.text)
	}
})
