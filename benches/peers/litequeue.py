"""litequeue in this process, with SQLite synchronous=FULL: each message is put, popped and done. Prints jobs a second.

It has no calls for several: with a batch, puts and dones stand in its `transaction()`, which `pop` cannot.

python3 litequeue.py PEERS_FOLDER NEW_DATABASE JOBS BATCH
"""

import sys
import time

# Or the import below would find this file.
sys.path[0] = sys.argv[1] + "/python"
from contextlib import nullcontext

from litequeue import LiteQueue

jobs, batch = int(sys.argv[3]), int(sys.argv[4])
queue = LiteQueue(sys.argv[2])
# After the constructor, which sets it to NORMAL.
queue.conn.execute("PRAGMA synchronous = FULL")
together = queue.transaction if batch > 1 else nullcontext

began = time.perf_counter()
left = jobs
while left > 0:
    count = min(left, batch)
    with together():
        for _ in range(count):
            queue.put("true")
    taken = [queue.pop().message_id for _ in range(count)]
    with together():
        for message in taken:
            queue.done(message)
    left -= count
print(jobs / (time.perf_counter() - began))
queue.close()
