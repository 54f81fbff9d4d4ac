# Ruby's bunny against a started broker: `ruby client.rb FEATURE`.
#
# The broker is named by AMQP_URL; the names of what a feature declares begin with AMQP_PREFIX. Exit status: 0 all checks held (their number
# is printed), 1 one did not, 2 there is no such feature.
require "bunny"
require "timeout"

WITHIN_S = 30 # for anything that must happen; nothing waits this long when all is well

$features = {}
$held = 0
$names = 0

def feature(name, &body)
  $features[name] = body
end

def equal(what, got, want)
  raise "#{what}: got #{got.inspect}, want #{want.inspect}" unless got == want
  $held += 1
end

def refused(error, code, text)
  yield
rescue error => refusal
  close = refusal.respond_to?(:channel_close) ? refusal.channel_close : refusal.connection_close
  equal("reply", [close.reply_code, close.reply_text], [code, text])
else
  raise "not refused: #{text}"
end

# A name that nothing else has.
def name(kind)
  "#{ENV.fetch("AMQP_PREFIX")}-#{kind}-#{$names += 1}"
end

def connect(**settings)
  connection = Bunny.new(ENV.fetch("AMQP_URL"), recover_from_connection_close: false, automatically_recover: false, logger: Logger.new(IO::NULL),
                                               continuation_timeout: WITHIN_S * 1000, **settings)
  connection.start
end

# The next item of a thread's queue.
def take(queue, what)
  Timeout.timeout(WITHIN_S, nil, "#{what}: nothing within #{WITHIN_S} s") { queue.pop }
end

feature "connect and close" do
  connection = connect(heartbeat: 1, frame_max: 8192, channel_max: 5)
  equal("open", connection.open?, true)
  equal("negotiated", [connection.heartbeat, connection.frame_max, connection.channel_max], [1, 8192, 5])
  equal("capabilities", connection.server_capabilities["publisher_confirms"], true)
  connection.close
  equal("closed", connection.closed?, true)
  begin
    connect(pass: "wrong", user: "guest")
  rescue Bunny::AuthenticationFailureError => failure
    equal("a wrong password", failure.message.include?("Authentication with RabbitMQ failed"), true)
  end
  begin
    connect(vhost: "nowhere")
  rescue Bunny::NotAllowedError, Bunny::PossibleAuthenticationFailureError => failure
    equal("no such virtual host", failure.message.empty?, false)
  end
  equal("both were refused", $held, 6)
end

feature "topology" do
  channel = connect.create_channel
  source = channel.topic(name("source"), auto_delete: true)
  middle = channel.headers(name("middle"), auto_delete: true, internal: true)
  queue = channel.queue(name("q"), durable: true)
  middle.bind(source, routing_key: "a.*")
  queue.bind(middle, arguments: { "x-match" => "all", "colour" => "red" })
  source.publish("through", routing_key: "a.b", headers: { "colour" => "red" })
  source.publish("another colour", routing_key: "a.b", headers: { "colour" => "blue" })
  source.publish("nowhere", routing_key: "b", headers: { "colour" => "red" })
  Timeout.timeout(WITHIN_S) { sleep 0.001 until queue.message_count == 1 } # not before all three were routed, in order
  equal("routed", queue.message_count, 1)
  equal("known", [channel.connection.queue_exists?(queue.name), channel.connection.exchange_exists?(source.name)], [true, true])
  equal("unknown", channel.connection.queue_exists?(name("nowhere")), false)
  queue.unbind(middle, arguments: { "x-match" => "all", "colour" => "red" }) # and the two exchanges go with it
  queue.purge
  equal("purged", queue.message_count, 0)
  equal("deleted", queue.delete.message_count, 0)
  equal("a name from the broker", channel.temporary_queue.name.start_with?("amq.gen-"), true)
end

feature "publish with confirms" do
  channel = connect.create_channel
  channel.confirm_select
  queue = channel.temporary_queue
  100.times { |number| channel.default_exchange.publish(number.to_s, routing_key: queue.name, persistent: true) }
  equal("all confirmed", channel.wait_for_confirms, true)
  equal("none refused", channel.nacked_set.to_a, [])
  equal("what is confirmed is there", queue.message_count, 100)
  returned = Queue.new
  exchange = channel.default_exchange # the same object for both: the listener is its own
  exchange.on_return { |info, _, body| returned.push([info.reply_code, info.reply_text, body]) }
  exchange.publish("back", routing_key: name("nowhere"), mandatory: true)
  equal("returned", take(returned, "the return"), [312, "NO_ROUTE", "back"])
  equal("and confirmed", channel.wait_for_confirms, true)
end

feature "properties and headers" do
  channel = connect.create_channel
  queue = channel.temporary_queue
  sent = {
    content_type: "text/plain", content_encoding: "utf-8", delivery_mode: 2, priority: 3, correlation_id: "c", reply_to: "r",
    expiration: "60000", message_id: "m", timestamp: Time.at(1_700_000_000), type: "t", user_id: "guest", app_id: "a",
    headers: { "text" => "grün".b, "int" => 7, "big" => 2**40, "float" => 1.5, "yes" => true, "none" => nil, "list" => [1, "two"], "table" => { "k" => "v" } }
  }
  body = "0123456789" * 30_000
  channel.default_exchange.publish(body, routing_key: queue.name, **sent, timestamp: 1_700_000_000)
  info, properties, got = queue.pop
  equal("body", got == body, true)
  equal("properties", properties.to_hash.slice(*sent.keys), sent)
  equal("info", [info.exchange, info.routing_key, info.redelivered?], ["", queue.name, false])
end

feature "consume with acks" do
  channel = connect.create_channel
  channel.prefetch(2)
  queue = channel.queue(name("q"), auto_delete: false)
  %w[1 2 3 4].each { |body| queue.publish(body) }
  inbox = Queue.new
  consumer = queue.subscribe(manual_ack: true) { |info, _, body| inbox.push([body, info.redelivered?, info.delivery_tag]) }
  first, second = take(inbox, "a delivery"), take(inbox, "a delivery")
  equal("two", [first[0], second[0]], %w[1 2])
  equal("the rest waits", queue.message_count, 2)
  channel.ack(second[2], true)
  third, fourth = take(inbox, "a delivery"), take(inbox, "a delivery")
  channel.nack(third[2], false, true)
  equal("once more", take(inbox, "a redelivery")[0, 2], ["3", true])
  channel.reject(fourth[2], false)
  consumer.cancel
  channel.recover(true)
  equal("one is left", queue.message_count, 1)
  equal("deleted", queue.delete.message_count, 1)
end

feature "channel errors" do
  connection = connect
  refused(Bunny::NotFound, 404, "NOT_FOUND - no queue 'nowhere' in vhost '/'") do
    connection.create_channel.queue("nowhere", passive: true)
  end
  refused(Bunny::AccessRefused, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'") do
    connection.create_channel.queue("amq.mine")
  end
  own = connection.create_channel.queue(name("q"), durable: true, auto_delete: true)
  refused(Bunny::PreconditionFailed, 406,
          "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '#{own.name}' in vhost '/': received 'false' but current is 'true'") do
    connection.create_channel.queue(own.name, durable: false, auto_delete: true)
  end
  locked = connection.create_channel.queue(name("q"), exclusive: true)
  refused(Bunny::ResourceLocked, 405,
          "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '#{locked.name}' in vhost '/'. It could be originally declared on another " \
          "connection or the exclusive property value does not match that of the original declaration.") do
    connect.create_channel.queue(locked.name, exclusive: true)
  end
  failed = Queue.new
  channel = connection.create_channel
  channel.on_error { |_, close| failed.push([close.reply_code, close.reply_text]) }
  channel.ack(7)
  equal("an ack of what never came", take(failed, "the channel's end"), [406, "PRECONDITION_FAILED - unknown delivery tag 7"])
  equal("the connection goes on", connection.create_channel.temporary_queue.message_count, 0)
  own.delete
end

feature "cancelled by the broker" do
  connection = connect
  channel = connection.create_channel
  queue = channel.queue(name("q"))
  cancelled = Queue.new
  consumer = Bunny::Consumer.new(channel, queue)
  consumer.on_cancellation { |cancel| cancelled.push(cancel.consumer_tag) }
  queue.subscribe_with(consumer)
  connection.create_channel.queue_delete(queue.name)
  equal("told", take(cancelled, "the notice"), consumer.consumer_tag)
end

feature "transactions" do
  channel = connect.create_channel
  queue = channel.temporary_queue
  channel.tx_select
  channel.default_exchange.publish("never", routing_key: queue.name)
  channel.tx_rollback
  channel.default_exchange.publish("kept", routing_key: queue.name)
  equal("not yet", queue.message_count, 0)
  channel.tx_commit
  equal("committed", queue.pop[2], "kept")
end

body = $features[ARGV[0]]
unless body
  warn "usage: client.rb FEATURE, with one of the features that it registers"
  exit 2
end
begin
  body.call
  puts "#{$held} checks held"
rescue => problem
  warn problem.full_message(highlight: false)
  exit 1
end
# At once: bunny's threads would wait for connections that the features leave open.
$stdout.flush
exit! 0
