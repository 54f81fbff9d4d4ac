// Asks the Fibonacci server for some numbers and prints the answers.
//
//	go run ./6_rpc/fibonacci_client 10 50 100
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	numbers := os.Args[1:]
	if len(numbers) == 0 {
		numbers = []string{"30"}
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	queue, err := channel.QueueDeclare("", false, false, true, false, nil)
	must(err)
	answers, err := channel.Consume(queue.Name, "", true, true, false, false, nil)
	must(err)
	for index, number := range numbers {
		// The mark by which the answer to this question is known.
		question := fmt.Sprintf("question %d", index)
		must(channel.Publish("", "fibonacci", false, false, amqp.Publishing{
			ReplyTo:       queue.Name,
			CorrelationId: question,
			Body:          []byte(number),
		}))
		fmt.Printf("fibonacci(%s) = %s\n", number, wait(answers, question))
	}
}

const answerWithin = 10 * time.Second

func wait(answers <-chan amqp.Delivery, question string) string {
	late := time.After(answerWithin)
	for {
		select {
		case answer, open := <-answers:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			if answer.CorrelationId == question {
				return string(answer.Body)
			}
		case <-late:
			log.Fatalf("no answer within %s: is fibonacci_server running?", answerWithin)
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
