package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

var _ = feature("dial", func(c *check) {
	connection := c.dial()
	c.equal("protocol version", []int{connection.Major, connection.Minor}, []int{0, 9})
	c.equal("locales", connection.Locales, []string{"en_US"})
	c.equal("channel_max", connection.Config.ChannelMax, 2047)
	c.equal("frame_max", connection.Config.FrameSize, 131072)
	c.that("TLS is off", !connection.ConnectionState().HandshakeComplete)
	c.equal("local address", connection.LocalAddr().(*net.TCPAddr).IP.String(), "127.0.0.1")
	c.that("open", !connection.IsClosed())
})

var _ = feature("dial tells the capabilities", func(c *check) {
	connection := c.dial()
	capabilities, _ := connection.Properties["capabilities"].(amqp.Table)
	for _, name := range []string{
		"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
		"consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
	} {
		c.equal(name, capabilities[name], true)
	}
})

var _ = feature("dial with a config", func(c *check) {
	connection, err := amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{
		Vhost:      "/",
		ChannelMax: 3,
		FrameSize:  8192,
		Heartbeat:  30 * time.Second,
		Properties: amqp.Table{"connection_name": "from Go"},
		Dial:       amqp.DefaultDial(within),
	})
	c.must(err)
	defer connection.Close()
	c.equal("channel_max", connection.Config.ChannelMax, 3)
	c.equal("frame_max", connection.Config.FrameSize, 8192)
	c.equal("heartbeat", connection.Config.Heartbeat, 30*time.Second)
	channels := []*amqp.Channel{c.channelOf(connection), c.channelOf(connection), c.channelOf(connection)}
	_, err = connection.Channel()
	c.equal("a fourth channel", err, amqp.ErrChannelMax)
	c.must(channels[1].Close())
	channels[1] = c.channelOf(connection)

	// A body of several of these small frames, each way.
	queue := c.queue(channels[0])
	body := make([]byte, 100_000)
	for i := range body {
		body[i] = byte(i * 7)
	}
	c.must(channels[1].Publish("", queue, false, false, amqp.Publishing{Body: body}))
	delivery := await(c, "the large body", c.consume(channels[2], queue, true))
	c.that("the body is whole", string(delivery.Body) == string(body))
})

var _ = feature("dial is refused", func(c *check) {
	_, err := amqp.Dial(c.address(func(u *url.URL) { u.User = url.UserPassword("guest", "wrong") }))
	c.equal("a wrong password", err, amqp.ErrCredentials)
	_, err = amqp.Dial(c.address(func(u *url.URL) { u.Path = "/nowhere" }))
	c.equal("a virtual host that is not there", err, amqp.ErrVhost)
	_, err = amqp.DialConfig(os.Getenv("AMQP_URL"), amqp.Config{FrameSize: 1024})
	c.that("frames below the smallest allowed", err != nil)
})

var _ = feature("connection close", func(c *check) {
	connection := c.dial()
	channel := c.channelOf(connection)
	queue := c.queue(channel)
	closed, channelClosed := connection.NotifyClose(make(chan *amqp.Error, 1)), channel.NotifyClose(make(chan *amqp.Error, 1))
	deliveries := c.consume(channel, queue, true)
	c.must(connection.Close())
	awaitClosed(c, "the connection's notice", closed)
	awaitClosed(c, "the channel's notice", channelClosed)
	awaitClosed(c, "the deliveries", deliveries)
	c.that("closed", connection.IsClosed())
	_, err := connection.Channel()
	c.equal("a channel of a closed connection", err, amqp.ErrClosed)
	c.equal("a second close", connection.Close(), amqp.ErrClosed)
	awaitClosed(c, "a listener that comes too late", connection.NotifyClose(make(chan *amqp.Error, 1)))
})

var _ = feature("connection notify close", func(c *check) {
	connection := c.dial()
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	channel, other := c.channelOf(connection), c.channelOf(connection)
	channelClosed := other.NotifyClose(make(chan *amqp.Error, 1))
	queue := c.queue(c.channel())
	_, err := channel.Consume(queue, "twice", true, false, false, false, nil)
	c.must(err)
	_, err = other.Consume(queue, "twice", true, false, false, false, nil) // a tag belongs to its channel
	c.must(err)
	channel.Consume(queue, "twice", true, false, false, false, nil)
	text := "NOT_ALLOWED - attempt to reuse consumer tag 'twice'"
	c.refused(await(c, "the connection's notice", closed), 530, text)
	c.refused(await(c, "the channel's notice", channelClosed), 530, text)
	c.that("closed", connection.IsClosed())
})

var _ = feature("channels are apart", func(c *check) {
	connection := c.dial()
	broken, sound := c.channelOf(connection), c.channelOf(connection)
	queue := c.queue(sound)
	_, err := broken.QueueInspect(c.name("nowhere"))
	c.that("refused", err != nil)
	c.awaitReady("the other channel goes on", sound, queue, 0)
	c.awaitReady("and a new one takes the number", c.channelOf(connection), queue, 0)
})

// Run by a test that gives the broker little memory. The two listeners hear the same; publishing waits, and goes on by itself.
var _ = feature("connection notify blocked", func(c *check) {
	publisher := c.dial()
	first, second := publisher.NotifyBlocked(make(chan amqp.Blocking, 4)), publisher.NotifyBlocked(make(chan amqp.Blocking, 4))
	idle := c.dial()
	channel := c.channelOf(idle)
	queue := c.queue(channel)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		publishing := c.channelOf(publisher)
		body := make([]byte, 64*1024)
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := publishing.Publish("", queue, false, false, amqp.Publishing{Body: body}); err != nil {
				stopped <- err
				return
			}
		}
	}()
	c.equal("blocked", await(c, "a notice", first), amqp.Blocking{Active: true, Reason: "low on memory"})
	c.equal("blocked, told again", await(c, "a notice", second), amqp.Blocking{Active: true, Reason: "low on memory"})
	close(stop)
	_, err := channel.QueuePurge(queue, false)
	c.must(err)
	for unblocked := false; !unblocked; {
		// What was on the way may fill the memory once more; whoever drains goes on draining.
		unblocked = !await(c, "a notice", first).Active
		_, err := channel.QueuePurge(queue, false)
		c.must(err)
	}
	c.must(await(c, "the publisher's end", stopped))
})

// Run by a test that stops the broker when it reads the line.
var _ = feature("connection is told of a shutdown", func(c *check) {
	connection := c.dial()
	closed := connection.NotifyClose(make(chan *amqp.Error, 1))
	channelClosed := c.channelOf(connection).NotifyClose(make(chan *amqp.Error, 1))
	fmt.Println("connected")
	text := "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
	c.refused(await(c, "the connection's notice", closed), 320, text)
	c.refused(await(c, "the channel's notice", channelClosed), 320, text)
})
