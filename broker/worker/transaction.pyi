class Transaction:
    count: int
    acks: int
