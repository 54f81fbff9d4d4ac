// Answers requests for Fibonacci numbers, until Ctrl-C. Start several to share the work.
//
//	go run ./6_rpc/fibonacci_server
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
package main

import (
	"fmt"
	"log"
	"math/big"
	"os"
	"os/signal"
	"strconv"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	_, err = channel.QueueDeclare("fibonacci", false, false, false, false, nil)
	must(err)
	must(channel.Qos(1, 0, false))
	deliveries, err := channel.Consume("fibonacci", "", false, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("waiting for requests, Ctrl-C to stop")
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			answer := fibonacci(string(delivery.Body))
			fmt.Printf("fibonacci(%s) = %s\n", delivery.Body, answer)

			// The answer goes to the queue that the asker named, with the asker's own mark for this question.
			must(channel.Publish("", delivery.ReplyTo, false, false, amqp.Publishing{
				CorrelationId: delivery.CorrelationId,
				Body:          []byte(answer),
			}))
			must(delivery.Ack(false))
		case <-stop:
			fmt.Println("stopped")
			return
		}
	}
}

func fibonacci(text string) string {
	n, err := strconv.Atoi(text)
	if err != nil {
		return "not a number: " + text
	}
	a, b := big.NewInt(0), big.NewInt(1)
	for ; n > 0; n-- {
		a.Add(a, b)
		a, b = b, a
	}
	return a.String()
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
