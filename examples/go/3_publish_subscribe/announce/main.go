// Tells something to everybody who is listening just now.
//
//	go run ./3_publish_subscribe/announce "Lunch is ready"
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
		text = "Hello, everybody!"
	}

	connection, err := amqp.Dial(brokerURL())
	must(err)
	defer connection.Close()
	channel, err := connection.Channel()
	must(err)

	// A fanout exchange copies each message into every queue that is bound to it. Without any, the message is gone.
	must(channel.ExchangeDeclare("announcements", "fanout", false, false, false, false, nil))
	must(channel.Publish("announcements", "", false, false, amqp.Publishing{Body: []byte(text)}))
	fmt.Printf("announced: %s\n", text)
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
