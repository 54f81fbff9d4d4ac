<?php
// PHP's php-amqplib against a started broker: `php client.php FEATURE`.
//
// The broker is named by AMQP_URL; the names of what a feature declares begin with AMQP_PREFIX. Exit status: 0 all checks held (their number
// is printed), 1 one did not, 2 there is no such feature.

declare(strict_types=1);

require_once 'PhpAmqpLib/autoload.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPConnectionClosedException;
use PhpAmqpLib\Exception\AMQPProtocolChannelException;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPTable;

const WITHIN_S = 30; // for anything that must happen; nothing waits this long when all is well

$features = [];
$held = 0;
$names = 0;

function feature(string $name, callable $body): void
{
    global $features;
    $features[$name] = $body;
}

function equal(string $what, mixed $got, mixed $want): void
{
    global $held;
    if ($got !== $want) {
        throw new RuntimeException("$what: got " . var_export($got, true) . ', want ' . var_export($want, true));
    }
    $held++;
}

/** A name that nothing else has. */
function name(string $kind): string
{
    global $names;
    $names++;
    return getenv('AMQP_PREFIX') . "-$kind-$names";
}

function connect(string $password = null, string $vhost = '/'): AMQPStreamConnection
{
    $url = parse_url(getenv('AMQP_URL'));
    // The library gives a broker three seconds for anything; a busy machine may take them.
    return new AMQPStreamConnection(
        $url['host'],
        $url['port'],
        $url['user'],
        $password ?? $url['pass'],
        $vhost,
        connection_timeout: WITHIN_S,
        read_write_timeout: WITHIN_S,
    );
}

function refused(int $code, string $text, callable $operation): void
{
    try {
        $operation();
    } catch (AMQPProtocolChannelException $refusal) {
        equal('code', $refusal->amqp_reply_code, $code);
        equal('text', $refusal->amqp_reply_text, $text);
        return;
    }
    throw new RuntimeException("not refused: $text");
}

/** The broker closes the connection; the library adds the class and the method. */
function connection_refused(int $code, string $text, callable $operation): void
{
    try {
        $operation();
    } catch (AMQPConnectionClosedException $refusal) {
        equal('code', $refusal->getCode(), $code);
        equal('text', preg_replace('/\(\d+, \d+\)$/', '', $refusal->getMessage()), $text);
        return;
    }
    throw new RuntimeException("not refused: $text");
}

/** Takes in what comes until there are so many. */
function wait_for(AMQPChannel $channel, array &$inbox, int $count): void
{
    while (count($inbox) < $count) {
        $channel->wait(null, false, WITHIN_S);
    }
}

function ready(AMQPChannel $channel, string $queue): int
{
    return $channel->queue_declare($queue, true)[1];
}

feature('connect and close', function () {
    $connection = connect();
    equal('open', $connection->isConnected(), true);
    equal('product and capabilities', isset($connection->getServerProperties()['capabilities']), true);
    $connection->close();
    equal('closed', $connection->isConnected(), false);
    connection_refused(403, 'ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. For details see the broker logfile.', fn () => connect('wrong'));
    connection_refused(530, 'NOT_ALLOWED - vhost nowhere not found', fn () => connect(null, 'nowhere'));
});

feature('topology', function () {
    $channel = connect()->channel();
    $channel->confirm_select();
    [$source, $middle] = [name('source'), name('middle')];
    $channel->exchange_declare($source, 'topic', false, false, false);
    $channel->exchange_declare($middle, 'headers', false, true, false, true);
    [$queue] = $channel->queue_declare('', false, false, true);
    equal('a name from the broker', str_starts_with($queue, 'amq.gen-'), true);
    $channel->exchange_bind($middle, $source, 'a.*');
    $red = new AMQPTable(['x-match' => 'all', 'colour' => 'red']);
    $channel->queue_bind($queue, $middle, '', false, $red);
    foreach ([['a.b', 'red'], ['a.b', 'blue'], ['b', 'red']] as [$key, $colour]) {
        $message = new AMQPMessage('x', ['application_headers' => new AMQPTable(['colour' => $colour])]);
        $channel->basic_publish($message, $source, $key);
    }
    $channel->wait_for_pending_acks(WITHIN_S);
    equal('routed', ready($channel, $queue), 1);
    $channel->queue_unbind($queue, $middle, '', $red);
    $channel->exchange_unbind($middle, $source, 'a.*');
    $channel->exchange_delete($source);
    $channel->exchange_delete($middle, true);
    equal('purged', $channel->queue_purge($queue), 1);
    equal('deleted', $channel->queue_delete($queue), 0);
});

feature('publish with confirms', function () {
    $channel = connect()->channel();
    $acked = $nacked = $returned = [];
    $channel->set_ack_handler(function (AMQPMessage $message) use (&$acked) {
        $acked[] = $message->getBody();
    });
    $channel->set_nack_handler(function (AMQPMessage $message) use (&$nacked) {
        $nacked[] = $message->getBody();
    });
    $channel->set_return_listener(function ($code, $text, $exchange, $key, $message) use (&$returned) {
        $returned[] = [$code, $text, $exchange, $message->getBody()];
    });
    $channel->confirm_select();
    [$queue] = $channel->queue_declare('', false, false, true);
    for ($number = 0; $number < 100; $number++) {
        $channel->basic_publish(new AMQPMessage((string) $number), '', $queue, true);
    }
    $channel->basic_publish(new AMQPMessage('back'), 'amq.topic', name('nowhere'), true);
    $channel->wait_for_pending_acks_returns(WITHIN_S);
    equal('acked', count($acked), 101);
    equal('nacked', $nacked, []);
    equal('returned', $returned, [[312, 'NO_ROUTE', 'amq.topic', 'back']]);
    equal('what is confirmed is there', ready($channel, $queue), 100);
});

feature('properties and headers', function () {
    $channel = connect()->channel();
    [$queue] = $channel->queue_declare('', false, false, true);
    $headers = ['text' => 'grün', 'int' => 7, 'big' => 2 ** 40, 'yes' => true, 'none' => null, 'list' => [1, 'two'], 'table' => ['k' => 'v']];
    $properties = [
        'content_type' => 'text/plain', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 3, 'correlation_id' => 'c',
        'reply_to' => 'r', 'expiration' => '60000', 'message_id' => 'm', 'timestamp' => 1700000000, 'type' => 't', 'user_id' => 'guest',
        'app_id' => 'a',
    ];
    $body = str_repeat('0123456789', 30000);
    $channel->basic_publish(new AMQPMessage($body, $properties + ['application_headers' => new AMQPTable($headers)]), '', $queue);
    $message = $channel->basic_get($queue, true);
    equal('body', $message->getBody() === $body, true);
    equal('headers', $message->get('application_headers')->getNativeData(), $headers);
    foreach ($properties as $name => $value) {
        equal($name, $message->get($name), $value);
    }
    equal('an empty queue', $channel->basic_get($queue), null);
});

feature('consume with acks', function () {
    $channel = connect()->channel();
    $queue = name('q');
    $channel->queue_declare($queue, false, true, false, false);
    foreach (['1', '2', '3', '4'] as $body) {
        $channel->basic_publish(new AMQPMessage($body), '', $queue);
    }
    $channel->basic_qos(0, 2, false);
    $inbox = [];
    $tag = $channel->basic_consume($queue, '', false, false, false, false, function (AMQPMessage $message) use (&$inbox) {
        $inbox[] = $message;
    });
    wait_for($channel, $inbox, 2);
    equal('the rest waits', ready($channel, $queue), 2);
    equal('two', array_map(fn ($message) => $message->getBody(), $inbox), ['1', '2']);
    $inbox[1]->ack(true);
    wait_for($channel, $inbox, 4);
    $inbox[2]->nack(true);
    wait_for($channel, $inbox, 5);
    equal('once more', [$inbox[4]->getBody(), $inbox[4]->isRedelivered()], ['3', true]);
    $inbox[3]->reject(false);
    $channel->basic_cancel($tag);
    $channel->basic_recover(true);
    equal('one is left', $channel->queue_delete($queue), 1);
});

feature('channel errors', function () {
    $connection = connect();
    refused(404, "NOT_FOUND - no queue 'nowhere' in vhost '/'", fn () => $connection->channel()->queue_declare('nowhere', true));
    refused(403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'", fn () => $connection->channel()->exchange_declare('amq.mine', 'direct'));
    refused(
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'topic' but current is 'direct'",
        fn () => $connection->channel()->exchange_declare('amq.direct', 'topic', false, true, false)
    );
    refused(406, 'PRECONDITION_FAILED - unknown delivery tag 7', function () use ($connection) {
        $channel = $connection->channel();
        $channel->basic_ack(7);
        $channel->queue_declare('', false, false, true);
    });
    [$queue] = $connection->channel()->queue_declare('', false, false, true);
    refused(
        405,
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '$queue' in vhost '/'. It could be originally declared on another "
        . 'connection or the exclusive property value does not match that of the original declaration.',
        fn () => connect()->channel()->basic_consume($queue)
    );
    equal('the connection goes on', $connection->channel()->queue_declare('', false, false, true)[1], 0);
});

feature('connection error', function () {
    $channel = connect()->channel();
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->basic_consume($queue, 'twice');
    $channel->callbacks = []; // so that the library does not refuse it by itself
    connection_refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'", fn () => $channel->basic_consume($queue, 'twice'));
});

feature('transactions', function () {
    $channel = connect()->channel();
    [$queue] = $channel->queue_declare('', false, false, true);
    $channel->tx_select();
    $channel->basic_publish(new AMQPMessage('never'), '', $queue);
    $channel->tx_rollback();
    $channel->basic_publish(new AMQPMessage('kept'), '', $queue);
    equal('not yet', ready($channel, $queue), 0);
    $channel->tx_commit();
    equal('committed', $channel->basic_get($queue, true)->getBody(), 'kept');
});

$body = $features[$argv[1] ?? ''] ?? null;
if ($body === null) {
    fwrite(STDERR, "usage: client.php FEATURE, with one of the features that it registers\n");
    exit(2);
}
try {
    $body();
} catch (Throwable $problem) {
    fwrite(STDERR, "$problem\n");
    exit(1);
}
echo "$held checks held\n";
