"""The resources of the HTTP API, one a file: its JSON object, under RabbitMQ's field names, and its routes.

Every file has the same two halves. Functions that make objects out of a `Survey` are pure. The functions under `routes` pick, call one of
them and reply. Nothing here asks a process or keeps anything.
"""
