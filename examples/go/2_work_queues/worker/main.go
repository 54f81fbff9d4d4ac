// Works on the tasks of the queue `tasks`, one at a time, until Ctrl-C. Start several to share the work.
//
//	go run ./2_work_queues/worker
//
// The broker's address is taken from AMQP_URL (default amqp://guest:guest@localhost:5672/%2F).
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func main() {
	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	durable := true
	_, err = channel.QueueDeclare("tasks", durable, false, false, false, nil)
	must(err)

	// Not more than one unfinished task for each worker: a task goes to whoever is free, not to whoever is next.
	must(channel.Qos(1, 0, false))
	deliveries, err := channel.Consume("tasks", "", false, false, false, false, nil)
	must(err)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Println("waiting for tasks, Ctrl-C to stop")
	for {
		select {
		case delivery, open := <-deliveries:
			if !open {
				log.Fatal("the broker has closed the channel")
			}
			task := string(delivery.Body)
			fmt.Printf("working: %s\n", task)
			time.Sleep(time.Duration(strings.Count(task, ".")) * 100 * time.Millisecond)
			fmt.Printf("done: %s\n", task)
			// Only now may the broker forget the task. If this program dies before, another worker gets it.
			must(delivery.Ack(false))
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
