// Command go runs one feature of a Go client library against a started broker: `client FEATURE`.
//
// It owns the register of features and what their bodies check with. tests/clients/test_go.py builds it twice, for
// github.com/rabbitmq/amqp091-go and for github.com/streadway/amqp, and runs every feature by name. The broker is named by AMQP_URL; the
// names of what a feature declares begin with AMQP_PREFIX. Exit status: 0 all checks held (their number is printed), 1 one did not,
// 2 there is no such feature.
package main

import (
	"fmt"
	"net/url"
	"os"
	"reflect"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const within = 30 * time.Second // for anything that must happen; nothing waits this long when all is well

var features = map[string]func(*check){}

func feature(name string, body func(*check)) bool {
	features[name] = body
	return true
}

func main() {
	if len(os.Args) != 2 || features[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: client FEATURE, with one of the features that the sources register")
		os.Exit(2)
	}
	c := &check{}
	defer func() {
		problem := recover()
		if _, ours := problem.(failure); problem != nil && !ours {
			panic(problem)
		}
		c.cleanUp()
		if problem != nil {
			fmt.Fprintln(os.Stderr, problem)
			os.Exit(1)
		}
		fmt.Printf("%d checks held\n", c.held)
	}()
	features[os.Args[1]](c)
}

type failure string

// check is what a feature's body works with: connections, names of its own, and assertions that end the feature.
type check struct {
	held     int
	names    int
	cleaning []func()
}

func (c *check) fail(format string, arguments ...any) {
	panic(failure(fmt.Sprintf(format, arguments...)))
}

func (c *check) must(err error) {
	if err != nil {
		c.fail("unexpected error: %v", err)
	}
}

func (c *check) equal(what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		c.fail("%s: got %#v, want %#v", what, got, want)
	}
	c.held++
}

func (c *check) that(what string, holds bool) {
	if !holds {
		c.fail("not so: %s", what)
	}
	c.held++
}

// refused checks that err is the broker's, with this code and text.
func (c *check) refused(err error, code int, text string) {
	refusal, ours := err.(*amqp.Error)
	if !ours || refusal == nil {
		c.fail("want %d %q, got %#v", code, text, err)
	}
	c.equal("code", refusal.Code, code)
	c.equal("text", refusal.Reason, text)
	c.that("it came from the broker", refusal.Server)
}

// dial opens a connection that is closed with the feature.
func (c *check) dial() *amqp.Connection {
	connection, err := amqp.Dial(os.Getenv("AMQP_URL"))
	c.must(err)
	c.atEnd(func() { connection.Close() })
	return connection
}

// channel opens a channel on a connection of its own.
func (c *check) channel() *amqp.Channel { return c.channelOf(c.dial()) }

func (c *check) channelOf(connection *amqp.Connection) *amqp.Channel {
	channel, err := connection.Channel()
	c.must(err)
	return channel
}

// name gives a name that nothing else has.
func (c *check) name(kind string) string {
	c.names++
	return fmt.Sprintf("%s-%s-%d", os.Getenv("AMQP_PREFIX"), kind, c.names)
}

// queue declares a queue of the feature's own: durable, not exclusive, so that every connection may touch it.
func (c *check) queue(channel *amqp.Channel) string {
	name := c.name("q")
	_, err := channel.QueueDeclare(name, true, false, false, false, nil)
	c.must(err)
	c.atEnd(func() { c.channel().QueueDelete(name, false, false, false) })
	return name
}

// exchange declares an exchange of the feature's own.
func (c *check) exchange(channel *amqp.Channel, kind string) string {
	name := c.name("x")
	c.must(channel.ExchangeDeclare(name, kind, false, false, false, false, nil))
	c.atEnd(func() { c.channel().ExchangeDelete(name, false, false) })
	return name
}

// ready is the number of messages in a queue that wait for a consumer, asked on a channel; everything sent on that channel before has been
// carried out when the answer comes.
func (c *check) ready(channel *amqp.Channel, queue string) int {
	state, err := channel.QueueInspect(queue)
	c.must(err)
	return state.Messages
}

// awaitReady looks until that many messages wait in the queue: a broker need not have put away what it has only just been sent.
func (c *check) awaitReady(what string, channel *amqp.Channel, queue string, want int) {
	got := c.ready(channel, queue)
	for late := time.Now().Add(within); got != want && time.Now().Before(late); got = c.ready(channel, queue) {
		time.Sleep(time.Millisecond)
	}
	c.equal(what, got, want)
}

func (c *check) publish(channel *amqp.Channel, exchange, key string, bodies ...string) {
	for _, body := range bodies {
		c.must(channel.Publish(exchange, key, false, false, amqp.Publishing{Body: []byte(body)}))
	}
}

func (c *check) consume(channel *amqp.Channel, queue string, autoAck bool) <-chan amqp.Delivery {
	deliveries, err := channel.Consume(queue, "", autoAck, false, false, false, nil)
	c.must(err)
	return deliveries
}

func (c *check) atEnd(clean func()) { c.cleaning = append(c.cleaning, clean) }

func (c *check) cleanUp() {
	for len(c.cleaning) > 0 {
		last := len(c.cleaning) - 1
		clean := c.cleaning[last]
		c.cleaning = c.cleaning[:last]
		func() {
			defer func() { recover() }() // the broker may be gone by now: what matters was checked before
			clean()
		}()
	}
}

// await takes the next value from a channel; the feature fails when none comes, or when it is closed instead.
func await[T any](c *check, what string, from <-chan T) T {
	select {
	case value, open := <-from:
		if !open {
			c.fail("%s: closed, nothing came", what)
		}
		c.held++
		return value
	case <-time.After(within):
		c.fail("%s: nothing within %s", what, within)
	}
	panic("unreachable")
}

// awaitClosed waits for a channel's end; the feature fails when a value comes.
func awaitClosed[T any](c *check, what string, from <-chan T) {
	select {
	case value, open := <-from:
		if open {
			c.fail("%s: got %#v, want it closed", what, value)
		}
		c.held++
	case <-time.After(within):
		c.fail("%s: not closed within %s", what, within)
	}
}

// none checks that nothing waits in a channel. Ask the broker something on the same AMQP channel before (check.ready): its answer comes
// after whatever it had sent.
func none[T any](c *check, what string, from <-chan T) {
	select {
	case value, open := <-from:
		c.fail("%s: got %#v (open: %v), want nothing", what, value, open)
	default:
		c.held++
	}
}

// bodies takes the next deliveries and gives their bodies, joined by spaces.
func bodies(c *check, from <-chan amqp.Delivery, count int) string {
	var texts []string
	for range make([]struct{}, count) {
		texts = append(texts, string(await(c, "delivery", from).Body))
	}
	return strings.Join(texts, " ")
}

// address is AMQP_URL with some parts of it changed.
func (c *check) address(change func(*url.URL)) string {
	address, err := url.Parse(os.Getenv("AMQP_URL"))
	c.must(err)
	change(address)
	return address.String()
}
