// Sends an event under a topic: words joined by dots, from the general to the special.
//
//	go run ./5_topics/emit_event garden.gate.opened "by the gardener"
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
	topic, text := "garden.gate.opened", ""
	if len(os.Args) > 1 {
		topic = os.Args[1]
		text = strings.Join(os.Args[2:], " ")
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	// A topic exchange compares the routing key, word by word, with the pattern of each binding.
	must(channel.ExchangeDeclare("events", "topic", false, false, false, false, nil))
	must(channel.Publish("events", topic, false, false, amqp.Publishing{Body: []byte(text)}))
	fmt.Printf("sent: %s: %s\n", topic, text)
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
