// Prints every message that comes to the queue `hello`, until Ctrl-C.
//
//	go run ./1_hello_world/receive
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	_, err = channel.QueueDeclare("hello", false, false, false, false, nil)
	must(err)

	// With automatic acks the broker forgets a message as soon as it is sent to us; the next example does better.
	autoAck := true
	deliveries, err := channel.Consume("hello", "", autoAck, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("waiting for messages, Ctrl-C to stop")
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			fmt.Printf("received: %s\n", delivery.Body)
		case <-stop:
			fmt.Println("stopped")
			return
		}
	}
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
