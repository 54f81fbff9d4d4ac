"""The management process: what an operator sees of the node, over HTTP.

It asks the other processes over their links (`peers`), merges the answers into one picture (`survey`) and serves it under RabbitMQ's paths
and field names (`resources/`) on the HTTP port and on the control socket of the command line. It opens no store, speaks no AMQP and holds
nothing that must survive: it may die and come back at any time.

From the request to the answer:

    door          raw path, limits, security headers, the last error handler        (every request)
    login         who asks, and may they                                            (a dependency of every route)
    resources/    one file a resource: its JSON object and its routes
    surveyor      a picture no older than the request, shared by requests that come together
    survey        that picture: the answers of all processes, indexed, with rates from `history`
    listing       name filter, sort, columns, pages

To add a resource: write `resources/<plural>.py` with a function that makes its objects out of a `Survey` (pure, tested with made-up
answers) and an `APIRouter` named `routes` whose functions do no more than pick, call and reply; then add it to the list in
`application.py`. Names in a path are `PathName`, so that `%2F` is a slash inside a name; lists go through `Listing.reply`. A route that
changes something sends the same command to the router as AMQP does and turns its refusal into a 400 (no such route exists yet).
"""
