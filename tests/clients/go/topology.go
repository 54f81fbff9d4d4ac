package main

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("exchange declare", func(c *check) {
	channel := c.channel()
	for _, kind := range []string{"direct", "fanout", "topic", "headers"} {
		for _, durable := range []bool{true, false} {
			name := c.name(kind)
			c.must(channel.ExchangeDeclare(name, kind, durable, false, false, false, nil))
			c.must(channel.ExchangeDeclare(name, kind, durable, false, false, false, nil))
			c.must(channel.ExchangeDeclarePassive(name, kind, durable, false, false, false, nil))
			c.must(channel.ExchangeDelete(name, false, false))
			c.must(channel.ExchangeDelete(name, false, false)) // of one that is gone: nothing happens
		}
	}
	name := c.name("nowait")
	c.must(channel.ExchangeDeclare(name, "fanout", false, false, false, true, nil))
	c.must(channel.ExchangeDeclarePassive(name, "fanout", false, false, false, false, nil))
	c.must(channel.ExchangeDelete(name, false, true))
	err := channel.ExchangeDeclarePassive(name, "fanout", false, false, false, false, nil)
	c.refused(err, 404, "NOT_FOUND - no exchange '"+name+"' in vhost '/'")
})

var _ = feature("exchange declare is refused", func(c *check) {
	existing := c.exchange(c.channel(), "direct")
	err := c.channel().ExchangeDeclare(existing, "direct", true, false, false, false, nil)
	c.refused(err, 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange '"+existing+
		"' in vhost '/': received 'true' but current is 'false'")
	err = c.channel().ExchangeDeclare(existing, "topic", false, false, false, false, nil)
	c.refused(err, 406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange '"+existing+
		"' in vhost '/': received 'topic' but current is 'direct'")
	err = c.channel().ExchangeDeclare("amq.mine", "direct", false, false, false, false, nil)
	c.refused(err, 403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")
	err = c.channel().ExchangeDeclare(c.name("x"), "square", false, false, false, false, nil)
	c.refused(err, 406, "PRECONDITION_FAILED - unknown exchange type 'square'")
	err = c.channel().ExchangeDelete("amq.direct", false, false)
	c.refused(err, 403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed")
})

var _ = feature("exchange delete if unused", func(c *check) {
	channel := c.channel()
	exchange, queue := c.exchange(channel, "direct"), c.queue(channel)
	c.must(channel.QueueBind(queue, "k", exchange, false, nil))
	c.refused(c.channel().ExchangeDelete(exchange, true, false), 406,
		"PRECONDITION_FAILED - exchange '"+exchange+"' in vhost '/' in use")
	c.must(channel.QueueUnbind(queue, "k", exchange, nil))
	c.must(channel.ExchangeDelete(exchange, true, false))
	c.refused(channel.ExchangeDeclarePassive(exchange, "direct", false, false, false, false, nil), 404,
		"NOT_FOUND - no exchange '"+exchange+"' in vhost '/'")
})

var _ = feature("exchange goes with its last binding", func(c *check) {
	channel := c.channel()
	queue, exchange := c.queue(channel), c.name("x")
	c.must(channel.ExchangeDeclare(exchange, "fanout", false, true, false, false, nil))
	c.must(channel.QueueBind(queue, "1", exchange, false, nil))
	c.must(channel.QueueBind(queue, "2", exchange, false, nil))
	c.must(channel.QueueUnbind(queue, "1", exchange, nil))
	c.must(channel.ExchangeDeclarePassive(exchange, "fanout", false, true, false, false, nil))
	c.must(channel.QueueUnbind(queue, "2", exchange, nil))
	c.refused(channel.ExchangeDeclarePassive(exchange, "fanout", false, true, false, false, nil), 404,
		"NOT_FOUND - no exchange '"+exchange+"' in vhost '/'")
})

var _ = feature("exchange that is internal", func(c *check) {
	channel := c.channel()
	queue, source, internal := c.queue(channel), c.exchange(channel, "fanout"), c.name("internal")
	c.must(channel.ExchangeDeclare(internal, "fanout", false, false, true, false, nil))
	c.atEnd(func() { c.channel().ExchangeDelete(internal, false, false) })
	c.must(channel.ExchangeBind(internal, "", source, false, nil))
	c.must(channel.QueueBind(queue, "", internal, false, nil))
	c.publish(channel, source, "", "by way of another")
	c.equal("routed", bodies(c, c.consume(channel, queue, true), 1), "by way of another")
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	c.publish(channel, internal, "", "directly")
	c.refused(await(c, "the channel's end", closed), 403,
		"ACCESS_REFUSED - cannot publish to internal exchange '"+internal+"' in vhost '/'")
})

var _ = feature("exchange bind", func(c *check) {
	channel := c.channel()
	source, middle, queue := c.exchange(channel, "topic"), c.exchange(channel, "direct"), c.queue(channel)
	c.must(channel.QueueBind(queue, "a.b", middle, false, nil))
	c.must(channel.ExchangeBind(middle, "a.*", source, false, nil))
	c.must(channel.ExchangeBind(middle, "a.*", source, true, nil))
	c.must(channel.ExchangeBind(source, "a.b", middle, false, nil)) // a circle
	c.publish(channel, source, "a.b", "once")
	c.publish(channel, source, "a.c", "stops in the middle")
	c.publish(channel, source, "b.b", "goes nowhere")
	c.awaitReady("routed once", channel, queue, 1)
	c.must(channel.ExchangeUnbind(middle, "a.*", source, false, nil))
	c.publish(channel, source, "a.b", "no longer")
	c.awaitReady("not routed", channel, queue, 1)
	c.must(channel.ExchangeBind(middle, "a.*", source, true, nil))
	c.must(channel.ExchangeUnbind(middle, "a.*", source, true, nil))
	c.publish(channel, source, "a.b", "no longer")
	c.awaitReady("not routed", channel, queue, 1)
	missing := c.name("nowhere")
	c.refused(channel.ExchangeBind(missing, "", source, false, nil), 404, "NOT_FOUND - no exchange '"+missing+"' in vhost '/'")
})

var _ = feature("alternate exchange", func(c *check) {
	channel := c.channel()
	queue, last, first := c.queue(channel), c.exchange(channel, "fanout"), c.name("x")
	c.must(channel.ExchangeDeclare(first, "direct", false, false, false, false, amqp.Table{"alternate-exchange": last}))
	c.atEnd(func() { c.channel().ExchangeDelete(first, false, false) })
	returned := channel.NotifyReturn(make(chan amqp.Return, 2))
	c.must(channel.Publish(first, "k", true, false, amqp.Publishing{Body: []byte("nobody takes it")}))
	c.equal("returned", string(await(c, "the return", returned).Body), "nobody takes it")
	c.must(channel.QueueBind(queue, "", last, false, nil))
	c.must(channel.Publish(first, "k", true, false, amqp.Publishing{Body: []byte("caught")}))
	c.equal("caught", bodies(c, c.consume(channel, queue, true), 1), "caught")
	c.ready(channel, queue)
	none(c, "a second return", returned)
})

var _ = feature("queue declare", func(c *check) {
	channel := c.channel()
	named := c.name("q")
	state, err := channel.QueueDeclare(named, false, false, false, false, amqp.Table{"x-unknown": "ignored"})
	c.must(err)
	c.equal("a new queue", state, amqp.Queue{Name: named})
	c.publish(channel, "", named, "1", "2")
	c.awaitReady("published", channel, named, 2)
	state, err = channel.QueueDeclare(named, false, false, false, false, nil)
	c.must(err)
	c.equal("declared again", state, amqp.Queue{Name: named, Messages: 2})
	_, err = channel.QueueDelete(named, false, false, false)
	c.must(err)
	generated, err := channel.QueueDeclare("", false, false, true, false, nil)
	c.must(err)
	c.that("the broker made a name", len(generated.Name) == len("amq.gen-")+22 && generated.Name[:8] == "amq.gen-")
	nowait := c.name("q")
	_, err = channel.QueueDeclare(nowait, false, true, false, true, nil)
	c.must(err)
	c.awaitReady("without an answer", channel, nowait, 0)
	c.consume(channel, nowait, true)
	state, err = channel.QueueInspect(nowait)
	c.must(err)
	c.equal("consumers", state.Consumers, 1)
	c.must(channel.Close())
	// It goes with its last consumer, and nobody is told when.
	var gone error
	for late := time.Now().Add(within); gone == nil && time.Now().Before(late); {
		gone = inspect(c.channel(), nowait)
	}
	c.refused(gone, 404, "NOT_FOUND - no queue '"+nowait+"' in vhost '/'")
})

func inspect(channel *amqp.Channel, queue string) error {
	_, err := channel.QueueInspect(queue)
	return err
}

var _ = feature("queue declare is refused", func(c *check) {
	channel := c.channel()
	existing := c.queue(channel)
	_, err := c.channel().QueueDeclare(existing, false, false, false, false, nil)
	c.refused(err, 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '"+existing+
		"' in vhost '/': received 'false' but current is 'true'")
	_, err = c.channel().QueueDeclare("amq.mine", false, false, false, false, nil)
	c.refused(err, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'")
	own := c.name("q")
	_, err = channel.QueueDeclare(own, false, false, true, false, nil)
	c.must(err)
	c.refused(inspect(c.channel(), own), 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '"+own+
		"' in vhost '/'. It could be originally declared on another connection or the exclusive property value does not match "+
		"that of the original declaration.")
})

var _ = feature("queue declare passively and inspect", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	c.publish(channel, "", queue, "1", "2", "3")
	c.awaitReady("published", channel, queue, 3)
	passive, err := channel.QueueDeclarePassive(queue, false, true, false, false, nil) // passive looks at the name alone
	c.must(err)
	c.equal("passively", passive, amqp.Queue{Name: queue, Messages: 3})
	inspected, err := channel.QueueInspect(queue)
	c.must(err)
	c.equal("inspected", inspected, passive)
	missing := c.name("nowhere")
	_, err = channel.QueueDeclarePassive(missing, false, false, false, false, nil)
	c.refused(err, 404, "NOT_FOUND - no queue '"+missing+"' in vhost '/'")
})

var _ = feature("queue bind", func(c *check) {
	channel := c.channel()
	exchange, queue := c.exchange(channel, "direct"), c.queue(channel)
	c.must(channel.QueueBind(queue, "k", exchange, false, nil))
	c.must(channel.QueueBind(queue, "nowait", exchange, true, nil))
	c.publish(channel, exchange, "k", "1")
	c.publish(channel, exchange, "nowait", "2")
	c.publish(channel, exchange, "other", "lost")
	c.awaitReady("routed", channel, queue, 2)
	c.must(channel.QueueUnbind(queue, "k", exchange, nil))
	c.must(channel.QueueUnbind(queue, "k", exchange, nil)) // of one that is gone: nothing happens
	c.publish(channel, exchange, "k", "lost")
	c.awaitReady("no longer", channel, queue, 2)
	missing := c.name("nowhere")
	c.refused(c.channel().QueueBind(missing, "k", exchange, false, nil), 404, "NOT_FOUND - no queue '"+missing+"' in vhost '/'")
	c.refused(c.channel().QueueBind(queue, "k", missing, false, nil), 404, "NOT_FOUND - no exchange '"+missing+"' in vhost '/'")
	c.refused(c.channel().QueueBind(queue, "k", "", false, nil), 403,
		"ACCESS_REFUSED - operation not permitted on the default exchange")
})

var _ = feature("queue bind by headers", func(c *check) {
	channel := c.channel()
	exchange, all, any := c.exchange(channel, "headers"), c.queue(channel), c.queue(channel)
	c.must(channel.QueueBind(all, "", exchange, false, amqp.Table{"x-match": "all", "size": int32(1), "colour": "red"}))
	c.must(channel.QueueBind(any, "", exchange, false, amqp.Table{"x-match": "any", "size": int32(1), "colour": "red"}))
	for _, headers := range []amqp.Table{{"size": int32(1), "colour": "red"}, {"size": int32(1)}, {"size": int32(2)}, nil} {
		c.must(channel.Publish(exchange, "", false, false, amqp.Publishing{Headers: headers}))
	}
	c.awaitReady("all", channel, all, 1)
	c.awaitReady("any", channel, any, 2)
})

var _ = feature("queue purge", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	c.publish(channel, "", queue, "held", "1", "2", "3")
	c.awaitReady("published", channel, queue, 4)
	_, _, err := channel.Get(queue, false)
	c.must(err)
	purged, err := channel.QueuePurge(queue, false)
	c.must(err)
	c.equal("purged", purged, 3)
	c.publish(channel, "", queue, "4")
	purged, err = channel.QueuePurge(queue, true)
	c.must(err)
	c.equal("without an answer", purged, 0)
	c.awaitReady("empty", channel, queue, 0)
	c.equal("what was held stays", left(c, channel, queue), "held")
	missing := c.name("nowhere")
	_, err = c.channel().QueuePurge(missing, false)
	c.refused(err, 404, "NOT_FOUND - no queue '"+missing+"' in vhost '/'")
})

var _ = feature("queue delete", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	consumer := c.channel()
	c.consume(consumer, queue, false)
	_, err := c.channel().QueueDelete(queue, true, false, false)
	c.refused(err, 406, "PRECONDITION_FAILED - queue '"+queue+"' in vhost '/' in use")
	c.must(consumer.Close())
	c.publish(channel, "", queue, "1", "2")
	c.awaitReady("published", channel, queue, 2)
	_, err = c.channel().QueueDelete(queue, false, true, false)
	c.refused(err, 406, "PRECONDITION_FAILED - queue '"+queue+"' in vhost '/' not empty")
	count, err := channel.QueueDelete(queue, true, false, false)
	c.must(err)
	c.equal("messages gone with it", count, 2)
	count, err = channel.QueueDelete(queue, false, false, false)
	c.must(err)
	c.equal("of one that is gone: nothing happens", count, 0)
	queue = c.queue(channel)
	_, err = channel.QueueDelete(queue, false, false, true)
	c.must(err)
	c.refused(inspect(channel, queue), 404, "NOT_FOUND - no queue '"+queue+"' in vhost '/'")
})

var _ = feature("copies go to CC and BCC", func(c *check) {
	channel := c.channel()
	to, cc, bcc := c.queue(channel), c.queue(channel), c.queue(channel)
	c.must(channel.Publish("", to, false, false, amqp.Publishing{Headers: amqp.Table{
		"CC": []interface{}{cc, to}, "BCC": []interface{}{bcc}, "kept": "yes",
	}}))
	for _, queue := range []string{to, cc, bcc} {
		c.awaitReady("one copy each", channel, queue, 1)
		delivery, _, err := channel.Get(queue, true)
		c.must(err)
		c.equal("BCC is not told", delivery.Headers, amqp.Table{"CC": []interface{}{cc, to}, "kept": "yes"})
	}
})
