"""Train the network for 8x8 digits on all devices of one process, or of many.

Each process reads its own part of the data and computes on its own devices; the devices add up
their gradients at every step. Large parameters and their moments are kept in parts, one on each
device, and are whole only in the loss. After each epoch process 0 writes the run, and a script that
is started again, on any number of devices, goes on from there; a finished run is only scored, until
you delete distributed.safetensors in the folder --out. If a process dies or the network fails, the
others end with an error. Between machines that compute on CPUs, the name of each must lead to an
address that the others reach, not to 127.0.0.1 in its own /etc/hosts.

Command   python examples/distributed.py                       all devices of this machine
          XLA_FLAGS=--xla_force_host_platform_device_count=8 JAX_PLATFORMS=cpu \\
              python examples/distributed.py --out out/eight   eight devices that one CPU plays
          by hand, on each machine, with the number of the process, from 0:
              python examples/distributed.py --processes 2 --process 0 --coordinator HOST:1234
          where JAX finds all three itself, one process for each GPU:
          SLURM        srun --ntasks-per-node 8 python examples/distributed.py --cluster
          Open MPI     mpirun -n 16 python examples/distributed.py --cluster
          other MPI    mpirun -n 16 python examples/distributed.py --cluster mpi4py
          Kubernetes   python examples/distributed.py --cluster, in the pods of an indexed Job; pip
                       install "jax[k8s]"
Time      5 s on 2 cores; --out is a folder that all processes see
Expected  the losses of one device, whatever the number of devices; 97 % of the held-out digits
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import fnn

BATCH = 64  # on all devices together, whose number divides it
LARGE = 1000  # numbers in an array that is kept in parts; 2**16 by default


def init(key):
    k1, k2 = jax.random.split(key)
    return {"conv": fnn.init_conv(k1, (3, 3), 1, 16), "head": fnn.init_dense(k2, 256, 10)}


def logits(params, x):  # (n, 8, 8, 1)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv"])), 2)  # (n, 4, 4, 16)
    return fnn.dense(fnn.flatten(x), **params["head"])  # (n, 10)


def loss(params, batch):
    images, labels = batch
    params = fnn.sharding.gather(params)
    return fnn.cross_entropy(logits(params, images), labels).mean()


def own_part(data, mesh):
    """This process's examples, as its part of the arrays that all processes share."""
    size = len(data.y) // BATCH * BATCH // jax.process_count()
    first = jax.process_index() * size
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return tuple(
        jax.make_array_from_process_local_data(sharding, np.asarray(array[first : first + size]))
        for array in (data.x, data.y)
    )


def main(arguments):
    if arguments.cluster is not None or arguments.processes:
        jax.distributed.initialize(
            arguments.coordinator, arguments.processes, arguments.process,
            cluster_detection_method=arguments.cluster or None,
            heartbeat_timeout_seconds=10,  # until a process that dies is missed
        )  # fmt: skip
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    in_parts = partial(fnn.sharding.place, mesh=mesh, axis="data", least=LARGE)
    train, test = fnn.data.digits()
    file = arguments.out / "distributed.safetensors"
    arguments.out.mkdir(parents=True, exist_ok=True)
    run = fnn.load(file) if file.exists() else None
    for report in fnn.train(
        loss, in_parts(init(jax.random.key(0))), fnn.adam(3e-3), own_part(train, mesh),
        batch_size=BATCH, epochs=arguments.epochs, key=jax.random.key(1), resume=in_parts(run),
    ):  # fmt: skip
        run = fnn.sharding.place(report.run, mesh)  # whole, on every device of every process
        if jax.process_index() == 0:
            fnn.save(file, run)
        print(f"process {jax.process_index()}  {report}", flush=True)
    if jax.process_index() == 0 and run is not None:
        params = jax.device_get(run.params)
        accuracy = float(fnn.accuracy(logits(params, test.x), test.y).mean())
        print(f"{jax.device_count()} devices: {accuracy:.1%} of the held-out digits")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the checkpoint")
    parser.add_argument("--epochs", type=int, default=20)
    started = "started by SLURM, Open MPI or Kubernetes; else by what METHOD finds"
    parser.add_argument("--cluster", nargs="?", const="", metavar="METHOD", help=started)
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process", type=int, help="which one this is, from 0")
    parser.add_argument("--coordinator", help="address of process 0, HOST:PORT")
    main(parser.parse_args())
