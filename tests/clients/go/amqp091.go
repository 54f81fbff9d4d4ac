package main

import (
	"context"
	"net"
	"net/url"
	"os"

	amqp "github.com/rabbitmq/amqp091-go"
)

// What github.com/rabbitmq/amqp091-go has beyond its ancestor, or does right where that did not (AMQPLAIN).

var _ = feature("publish with a deferred confirm", func(c *check) {
	channel := c.channel()
	queue := c.queue(channel)
	c.must(channel.Confirm(false))
	deadline, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	c.equal("next number", channel.GetNextPublishSeqNo(), uint64(1))
	first, err := channel.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{})
	c.must(err)
	second, err := channel.PublishWithDeferredConfirmWithContext(deadline, "", queue, true, false, amqp.Publishing{})
	c.must(err)
	c.must(channel.PublishWithContext(deadline, "", queue, true, false, amqp.Publishing{}))
	c.equal("next number", channel.GetNextPublishSeqNo(), uint64(4))
	c.that("first acked", first.Wait())
	c.that("second acked", second.Wait())
	c.awaitReady("ready", channel, queue, 3)
	c.must(channel.Close())
	c.that("closed", channel.IsClosed())
})

var _ = feature("addresses of a connection", func(c *check) {
	address, err := url.Parse(os.Getenv("AMQP_URL"))
	c.must(err)
	c.equal("the broker's", c.dial().RemoteAddr().(*net.TCPAddr).String(), address.Host)
})

var _ = feature("update secret", func(c *check) {
	connection := c.dial()
	c.must(connection.UpdateSecret("guest", "it was time"))
	c.equal("the connection goes on", c.ready(c.channelOf(connection), c.queue(c.channel())), 0)
})

var _ = feature("dial with AMQPLAIN", func(c *check) {
	address, err := url.Parse(os.Getenv("AMQP_URL"))
	c.must(err)
	password, _ := address.User.Password()
	right := &amqp.AMQPlainAuth{Username: address.User.Username(), Password: password}
	connection, err := amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{SASL: []amqp.Authentication{right}})
	c.must(err)
	c.equal("ready", c.ready(c.channelOf(connection), c.queue(c.channelOf(connection))), 0)
	c.must(connection.Close())
	wrong := &amqp.AMQPlainAuth{Username: address.User.Username(), Password: "wrong"}
	_, err = amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{SASL: []amqp.Authentication{wrong}})
	c.equal("a wrong password", err, amqp.ErrCredentials)
})
