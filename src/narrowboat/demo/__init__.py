"""The flash sale: many buyers, few items, several worker processes, and an audit that can fail.

Every buyer's order is published to a queue. Workers, each a process of its own, consume orders, take a lock for the
item, read the stock, think, write the stock, and acknowledge. Half way one worker is killed with SIGKILL while it holds
a lock and an order, and another is stopped until its lease is over and then goes on with what it believes. At the end
everything is counted from what the workers wrote down.

    plan    what is sold, and the orders
    stock   the record that is protected: by the lock, and by accepting only the newest fencing token
    journal what each process writes down, line by line
    worker  one worker process
    sale    starts the workers, kills one, waits for the end
    audit   what the journals say about it; no I/O
"""
