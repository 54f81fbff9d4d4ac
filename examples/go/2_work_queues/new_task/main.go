// Puts a task into the queue `tasks`. Each dot in its text stands for one tenth of a second of work.
//
//	go run ./2_work_queues/new_task "resize photo 17..."
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
package main

import (
	"fmt"
	"log"
	"os"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	text := strings.Join(os.Args[1:], " ")
	if text == "" {
		text = "a short task."
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	// A durable queue is still known after a restart of the broker.
	durable := true
	_, err = channel.QueueDeclare("tasks", durable, false, false, false, nil)
	must(err)

	// From here on the broker says of each message that it has taken it over, or that it cannot.
	must(channel.Confirm(false))
	confirmed := channel.NotifyPublish(make(chan amqp.Confirmation, 1))

	must(channel.Publish("", "tasks", false, false, amqp.Publishing{Body: []byte(text), DeliveryMode: amqp.Persistent}))
	if confirm := <-confirmed; !confirm.Ack {
		log.Fatal("the broker did not take the task")
	}
	fmt.Printf("queued: %s\n", text)
}

func brokerURL() string {
	if url := os.Getenv("AMQP_URL"); url != "" {
		return url
	}
	return "amqp://guest:guest@localhost:5672/%2F"
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
