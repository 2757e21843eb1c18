"""HyperQueue as its wheel on PyPI brings it: server and worker in this process, tasks are submitted at once, and what
they write goes to files, as by default. Prints how many seconds passed from the submit to the start of the last task:
its `wait_for_jobs` looks once a second only, so the end is taken from the files that the tasks are given.

python3 hyperqueue.py PEERS_FOLDER FOLDER JOBS WORKERS
"""

import os
import sys
import time

# Or the import below would find this file.
sys.path[0] = sys.argv[1] + "/python"
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

folder, jobs, workers = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
os.makedirs(folder + "/server")
with LocalCluster(folder + "/server", WorkerConfig(cores=workers)) as cluster:
    client = cluster.client()
    began = time.time()
    job = Job(default_workdir=folder)
    for _ in range(jobs):
        job.program(["true"])
    client.wait_for_jobs([client.submit(job)])
    last = max(entry.stat().st_mtime for entry in os.scandir(folder) if entry.name.endswith(".stdout"))
    print(last - began)
    sys.stdout.flush()
    # Its threads do not always end with the cluster.
    os._exit(0)
