// Prints the log lines of the severities asked for, until Ctrl-C.
//
//	go run ./4_routing/read_log warning error
//	go run ./4_routing/read_log info warning error > everything.txt
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
	severities := os.Args[1:]
	if len(severities) == 0 {
		fmt.Fprintln(os.Stderr, "usage: read_log SEVERITY...   (for example: info warning error)")
		os.Exit(1)
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	must(channel.ExchangeDeclare("log", "direct", false, false, false, false, nil))
	queue, err := channel.QueueDeclare("", false, false, true, false, nil)
	must(err)

	// One binding for each severity; a queue may have as many as it likes.
	for _, severity := range severities {
		must(channel.QueueBind(queue.Name, severity, "log", false, nil))
	}

	deliveries, err := channel.Consume(queue.Name, "", true, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("reading the log, Ctrl-C to stop")
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
