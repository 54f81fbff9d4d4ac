// Sends a log line of some severity.
//
//	go run ./4_routing/emit_log error "The disk is full"
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
	severity, text := "info", "Hello, log!"
	if len(os.Args) > 1 {
		severity = os.Args[1]
	}
	if len(os.Args) > 2 {
		text = strings.Join(os.Args[2:], " ")
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	// A direct exchange gives a message to the queues that were bound with exactly its routing key.
	must(channel.ExchangeDeclare("log", "direct", false, false, false, false, nil))
	must(channel.Publish("log", severity, false, false, amqp.Publishing{Body: []byte(text)}))
	fmt.Printf("logged: %s: %s\n", severity, text)
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
