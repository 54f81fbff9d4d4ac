// Prints the events whose topics match one of the patterns, until Ctrl-C.
//
// In a pattern `*` stands for one word and `#` for any number of words, none included.
//
//	go run ./5_topics/watch_events "#"
//	go run ./5_topics/watch_events "garden.*.opened" "kitchen.#"
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
	patterns := os.Args[1:]
	if len(patterns) == 0 {
		fmt.Fprintln(os.Stderr, `usage: watch_events PATTERN...   (for example: "garden.*.opened" "kitchen.#")`)
		os.Exit(1)
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	must(channel.ExchangeDeclare("events", "topic", false, false, false, false, nil))
	queue, err := channel.QueueDeclare("", false, false, true, false, nil)
	must(err)

	// An event that matches several patterns still comes once.
	for _, pattern := range patterns {
		must(channel.QueueBind(queue.Name, pattern, "events", false, nil))
	}

	deliveries, err := channel.Consume(queue.Name, "", true, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("watching, Ctrl-C to stop")
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			fmt.Printf("%s: %s\n", delivery.RoutingKey, delivery.Body)
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
