// Sends one message to the queue `hello`.
//
//	go run ./1_hello_world/send
//	go run ./1_hello_world/send "How are you?"
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
		text = "Hello, World!"
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	// Declaring a queue creates it, or does nothing when it is there already. Sender and receiver both do it,
	// so that either may be started first.
	_, err = channel.QueueDeclare("hello", false, false, false, false, nil)
	must(err)

	// The exchange with the empty name hands a message to the queue named by the routing key.
	must(channel.Publish("", "hello", false, false, amqp.Publishing{Body: []byte(text)}))
	fmt.Printf("sent: %s\n", text)
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
