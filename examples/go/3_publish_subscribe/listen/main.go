// Prints all announcements made from now on, until Ctrl-C. Start several: each hears everything.
//
//	go run ./3_publish_subscribe/listen
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

	must(channel.ExchangeDeclare("announcements", "fanout", false, false, false, false, nil))

	// A queue of our own: the broker makes up its name, and removes it when this connection ends.
	exclusive := true
	queue, err := channel.QueueDeclare("", false, false, exclusive, false, nil)
	must(err)
	must(channel.QueueBind(queue.Name, "", "announcements", false, nil))

	deliveries, err := channel.Consume(queue.Name, "", true, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("listening, Ctrl-C to stop")
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			fmt.Printf("heard: %s\n", delivery.Body)
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
