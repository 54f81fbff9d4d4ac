import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.AuthenticationFailureException;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DefaultConsumer;
import com.rabbitmq.client.Envelope;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.RpcClient;
import com.rabbitmq.client.RpcServer;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * RabbitMQ's own client for Java against a started broker: {@code java Client FEATURE}.
 *
 * <p>The broker is named by AMQP_URL; the names of what a feature declares begin with AMQP_PREFIX. Exit status: 0 all checks held (their
 * number is printed), 1 one did not, 2 there is no such feature.
 */
public final class Client {
    private static final int WITHIN_MS = 30_000; // for anything that must happen; nothing waits this long when all is well
    private static final Map<String, Body> FEATURES = new LinkedHashMap<>();
    private static int held = 0;
    private static int names = 0;

    private interface Body {
        void run() throws Exception;
    }

    /** What a consumer received. */
    private static final class Delivery {
        final Envelope envelope;
        final AMQP.BasicProperties properties;
        final String body;

        Delivery(Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
            this.envelope = envelope;
            this.properties = properties;
            this.body = new String(body);
        }
    }

    /** A consumer that keeps what it receives until it is taken. */
    private static final class Inbox extends DefaultConsumer {
        final BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
        final BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();

        Inbox(Channel channel) {
            super(channel);
        }

        @Override
        public void handleDelivery(String tag, Envelope envelope, AMQP.BasicProperties properties, byte[] body) {
            deliveries.add(new Delivery(envelope, properties, body));
        }

        @Override
        public void handleCancel(String tag) {
            cancelled.add(tag);
        }

        Delivery take() throws InterruptedException {
            return Client.take("a delivery", deliveries);
        }
    }

    private static void feature(String name, Body body) {
        FEATURES.put(name, body);
    }

    private static void equal(String what, Object got, Object want) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + got + ", want " + want);
        }
        held++;
    }

    private static <T> T take(String what, BlockingQueue<T> from) throws InterruptedException {
        T item = from.poll(WITHIN_MS, TimeUnit.MILLISECONDS);
        if (item == null) {
            throw new AssertionError(what + ": nothing within " + WITHIN_MS + " ms");
        }
        return item;
    }

    /** A name that nothing else has. */
    private static String name(String kind) {
        names++;
        return System.getenv("AMQP_PREFIX") + "-" + kind + "-" + names;
    }

    private static ConnectionFactory factory() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv("AMQP_URL"));
        factory.setAutomaticRecoveryEnabled(false);
        factory.setHandshakeTimeout(WITHIN_MS);
        return factory;
    }

    private static Connection connect() throws Exception {
        return factory().newConnection();
    }

    private static String queue(Channel channel) throws IOException {
        return channel.queueDeclare(name("q"), true, false, false, null).getQueue();
    }

    /** The broker closes the channel, or the connection, with this reply. */
    private static void refused(int code, String text, Body operation) throws Exception {
        try {
            operation.run();
        } catch (IOException | AlreadyClosedException refusal) {
            Throwable signal = refusal instanceof AlreadyClosedException ? refusal : refusal.getCause();
            if (!(signal instanceof ShutdownSignalException)) {
                throw refusal;
            }
            Object reason = ((ShutdownSignalException) signal).getReason();
            if (reason instanceof AMQP.Channel.Close) {
                equal("code", ((AMQP.Channel.Close) reason).getReplyCode(), code);
                equal("text", ((AMQP.Channel.Close) reason).getReplyText(), text);
            } else {
                equal("code", ((AMQP.Connection.Close) reason).getReplyCode(), code);
                equal("text", ((AMQP.Connection.Close) reason).getReplyText(), text);
            }
            return;
        }
        throw new AssertionError("not refused: " + text);
    }

    static {
        feature("connect and close", () -> {
            ConnectionFactory small = factory();
            small.setRequestedFrameMax(8192);
            small.setRequestedChannelMax(3);
            small.setRequestedHeartbeat(7);
            Connection connection = small.newConnection("from Java");
            equal("frame_max", connection.getFrameMax(), 8192);
            equal("channel_max", connection.getChannelMax(), 3);
            equal("heartbeat", connection.getHeartbeat(), 7);
            equal("capabilities", ((Map<?, ?>) connection.getServerProperties().get("capabilities")).get("publisher_confirms"), true);
            for (int number = 0; number < 3; number++) {
                equal("a channel", connection.createChannel().isOpen(), true);
            }
            equal("no fourth", connection.createChannel(), null);
            connection.close();
            equal("closed", connection.isOpen(), false);
            ConnectionFactory wrong = factory();
            wrong.setPassword("wrong");
            try {
                wrong.newConnection();
                throw new AssertionError("a wrong password was accepted");
            } catch (AuthenticationFailureException failure) {
                equal("it says why", failure.getMessage().contains("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"), true);
            }
            ConnectionFactory nowhere = factory();
            nowhere.setVirtualHost("nowhere");
            refused(530, "NOT_ALLOWED - vhost nowhere not found", nowhere::newConnection);
        });

        feature("topology", () -> {
            Channel channel = connect().createChannel();
            String source = name("source");
            String middle = name("middle");
            channel.exchangeDeclare(source, "topic", false, true, null);
            channel.exchangeDeclare(middle, "headers", true, false, true, null);
            channel.exchangeDeclarePassive(source);
            String queue = channel.queueDeclare().getQueue();
            equal("a name from the broker", queue.startsWith("amq.gen-"), true);
            Map<String, Object> red = new HashMap<>();
            red.put("x-match", "all");
            red.put("colour", "red");
            channel.exchangeBind(middle, source, "a.*");
            channel.queueBind(queue, middle, "", red);
            for (String colour : Arrays.asList("red", "blue")) {
                AMQP.BasicProperties properties =
                    new AMQP.BasicProperties.Builder().headers(Collections.<String, Object>singletonMap("colour", colour)).build();
                channel.basicPublish(source, "a.b", properties, colour.getBytes());
                channel.basicPublish(source, "b", properties, colour.getBytes());
            }
            equal("routed", channel.messageCount(queue), 1L);
            channel.queueUnbind(queue, middle, "", red);
            channel.exchangeUnbind(middle, source, "a.*");
            channel.exchangeDelete(middle, true);
            equal("purged", channel.queuePurge(queue).getMessageCount(), 1);
            equal("deleted", channel.queueDelete(queue).getMessageCount(), 0);
        });

        feature("publish with confirms", () -> {
            Channel channel = connect().createChannel();
            BlockingQueue<String> returned = new LinkedBlockingQueue<>();
            channel.addReturnListener((code, text, exchange, key, properties, body) -> returned.add(code + " " + text + " " + new String(body)));
            channel.confirmSelect();
            String queue = channel.queueDeclare().getQueue();
            equal("first number", channel.getNextPublishSeqNo(), 1L);
            for (int number = 0; number < 100; number++) {
                channel.basicPublish("", queue, MessageProperties.PERSISTENT_TEXT_PLAIN, "x".getBytes());
            }
            equal("all confirmed", channel.waitForConfirms(WITHIN_MS), true);
            equal("what is confirmed is there", channel.messageCount(queue), 100L);
            channel.basicPublish("amq.topic", name("nowhere"), true, null, "back".getBytes());
            channel.waitForConfirmsOrDie(WITHIN_MS);
            equal("returned before its confirm", returned.poll(), "312 NO_ROUTE back");
            channel.basicPublish("", queue, false, true, null, "now or never".getBytes());
            channel.waitForConfirmsOrDie(WITHIN_MS);
            equal("immediate", returned.poll(), "313 NO_CONSUMERS now or never");
        });

        feature("properties and headers", () -> {
            Channel channel = connect().createChannel();
            String queue = channel.queueDeclare().getQueue();
            Map<String, Object> headers = new HashMap<>();
            headers.put("int", 7);
            headers.put("long", 1L << 40);
            headers.put("double", 1.5);
            headers.put("yes", true);
            headers.put("none", null);
            headers.put("list", Arrays.<Object>asList(1, 2));
            headers.put("table", Collections.singletonMap("k", 1));
            AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder().headers(headers).contentType("text/plain").contentEncoding("utf-8")
                .deliveryMode(2).priority(3).correlationId("c").replyTo("r").expiration("60000").messageId("m")
                .timestamp(new Date(1_700_000_000_000L)).type("t").userId("guest").appId("a").build();
            byte[] body = new byte[300_000];
            Arrays.fill(body, (byte) 'x');
            channel.basicPublish("", queue, sent, body);
            GetResponse got = channel.basicGet(queue, true);
            equal("body", Arrays.equals(got.getBody(), body), true);
            equal("properties", got.getProps().toString(), sent.toString());
            equal("left", got.getMessageCount(), 0);
            equal("an empty queue", channel.basicGet(queue, true), null);
            headers.clear();
            headers.put("text", "grün");
            channel.basicPublish("", queue, new AMQP.BasicProperties.Builder().headers(headers).build(), body);
            LongString text = (LongString) channel.basicGet(queue, true).getProps().getHeaders().get("text");
            equal("text", text.toString(), "grün");
        });

        feature("consume with acks", () -> {
            Channel channel = connect().createChannel();
            String queue = queue(channel);
            for (String body : Arrays.asList("1", "2", "3", "4")) {
                channel.basicPublish("", queue, null, body.getBytes());
            }
            channel.basicQos(2);
            Inbox inbox = new Inbox(channel);
            String tag = channel.basicConsume(queue, false, inbox);
            equal("first", inbox.take().body, "1");
            Delivery second = inbox.take();
            equal("the rest waits", channel.messageCount(queue), 2L);
            channel.basicAck(second.envelope.getDeliveryTag(), true);
            Delivery third = inbox.take();
            Delivery fourth = inbox.take();
            channel.basicNack(third.envelope.getDeliveryTag(), false, true);
            Delivery again = inbox.take();
            equal("once more", again.body + " " + again.envelope.isRedeliver(), "3 true");
            channel.basicReject(fourth.envelope.getDeliveryTag(), false);
            channel.basicCancel(tag);
            channel.basicRecover(true);
            equal("one is left", channel.queueDelete(queue).getMessageCount(), 1);
        });

        feature("channel errors", () -> {
            Connection connection = connect();
            refused(404, "NOT_FOUND - no queue 'nowhere' in vhost '/'", () -> connection.createChannel().queueDeclarePassive("nowhere"));
            refused(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
                () -> connection.createChannel().exchangeDeclare("amq.mine", "direct"));
            Channel sound = connection.createChannel();
            String queue = queue(sound);
            refused(406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '" + queue + "' in vhost '/': received 'false' but current is 'true'",
                () -> connection.createChannel().queueDeclare(queue, false, false, false, null));
            String own = sound.queueDeclare().getQueue();
            refused(405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '" + own + "' in vhost '/'. It could be originally "
                + "declared on another connection or the exclusive property value does not match that of the original declaration.",
                () -> connect().createChannel().queueDeclarePassive(own));
            Channel broken = connection.createChannel();
            BlockingQueue<ShutdownSignalException> ended = new LinkedBlockingQueue<>();
            broken.addShutdownListener(ended::add);
            broken.basicAck(7, false);
            AMQP.Channel.Close close = (AMQP.Channel.Close) take("the channel's end", ended).getReason();
            equal("an ack of what never came", close.getReplyText(), "PRECONDITION_FAILED - unknown delivery tag 7");
            equal("the connection goes on", sound.queueDelete(queue).getMessageCount(), 0);
        });

        feature("connection error", () -> {
            Connection connection = connect();
            Channel channel = connection.createChannel();
            String queue = channel.queueDeclare().getQueue();
            channel.basicConsume(queue, true, "twice", new Inbox(channel));
            refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'", () -> channel.basicConsume(queue, true, "twice", new Inbox(channel)));
            equal("closed", connection.isOpen(), false);
        });

        feature("cancelled by the broker", () -> {
            Connection connection = connect();
            Channel channel = connection.createChannel();
            String queue = queue(channel);
            Inbox inbox = new Inbox(channel);
            String tag = channel.basicConsume(queue, true, inbox);
            connection.createChannel().queueDelete(queue);
            equal("told", take("the notice", inbox.cancelled), tag);
        });

        feature("transactions", () -> {
            Channel channel = connect().createChannel();
            String queue = channel.queueDeclare().getQueue();
            channel.txSelect();
            channel.basicPublish("", queue, null, "never".getBytes());
            channel.txRollback();
            channel.basicPublish("", queue, null, "kept".getBytes());
            equal("not yet", channel.messageCount(queue), 0L);
            channel.txCommit();
            equal("committed", new String(channel.basicGet(queue, true).getBody()), "kept");
        });

        feature("calls by direct replies", () -> {
            Channel serving = connect().createChannel();
            String queue = queue(serving);
            RpcServer server = new RpcServer(serving, queue) {
                @Override
                public byte[] handleCall(byte[] question, AMQP.BasicProperties reply) {
                    return new String(question).toUpperCase().getBytes();
                }
            };
            Thread thread = new Thread(() -> {
                try {
                    server.mainloop();
                } catch (IOException | ShutdownSignalException ended) {
                    // the feature is over
                }
            });
            thread.setDaemon(true);
            thread.start();
            RpcClient client = new RpcClient(connect().createChannel(), "", queue, WITHIN_MS); // without a reply queue of its own: direct replies
            List<String> answers = new ArrayList<>();
            for (String question : Arrays.asList("one", "two")) {
                answers.add(client.stringCall(question));
            }
            equal("answers", answers, Arrays.asList("ONE", "TWO"));
            connect().createChannel().queueDelete(queue);
        });
    }

    public static void main(String[] arguments) {
        Body body = arguments.length == 1 ? FEATURES.get(arguments[0]) : null;
        if (body == null) {
            System.err.println("usage: java Client FEATURE, with one of the features that it registers");
            System.exit(2);
        }
        try {
            body.run();
        } catch (Throwable problem) {
            problem.printStackTrace();
            System.exit(1);
        }
        System.out.println(held + " checks held");
        System.exit(0); // at once: the library's threads would wait for connections that the features leave open
    }
}
