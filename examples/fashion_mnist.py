"""Train a CNN of two convolutions and 119,530 parameters on the 60,000 images of Fashion-MNIST.

Data      sudo apt-get install dataset-fashion-mnist, or --data DIR with the four IDX files
Command   python examples/fashion_mnist.py     trains, writes out/fashion_mnist.safetensors
Time      110 s on 2 cores, compilation and tests included
Expected  92.3 % of the 10,000 test images, each scored together with its mirror image
"""

import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.progress import Progress

import fnn

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
EPOCHS, BATCH, RATE, DECAY = 12, 128, 2e-3, 0.05


def init(key):
    k1, k2, k3, k4 = jax.random.split(key, 4)
    return {
        "conv1": fnn.init_conv(k1, (3, 3), 1, 32),
        "conv2": fnn.init_conv(k2, (3, 3), 32, 64),
        "hidden": fnn.init_dense(k3, 7 * 7 * 64, 32),
        "head": fnn.init_dense(k4, 32, 10),
    }


def logits(params, x):  # (n, 28, 28, 1)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv1"])), 2)  # (n, 14, 14, 32)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv2"])), 2)  # (n, 7, 7, 64)
    x = fnn.relu(fnn.dense(fnn.flatten(x), **params["hidden"]))  # (n, 32)
    return fnn.dense(x, **params["head"])  # (n, 10)


def mirror(x):
    return x[:, :, ::-1]


def loss(params, batch, key):
    """The loss of the images, half of them mirrored."""
    images, labels = batch
    chosen = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    images = jnp.where(chosen, mirror(images), images)
    return fnn.cross_entropy(logits(params, images), labels).mean()


def right(params, batch):
    """Whether each image is classified right, from its own logits and its mirror image's."""
    both = logits(params, batch.x) + logits(params, mirror(batch.x))
    return fnn.accuracy(both, batch.y)


def accuracy(params, data):
    return fnn.evaluate(right, params, data, batch_size=500)


def load(folder):
    try:
        return fnn.data.mnist(folder)
    except FileNotFoundError as error:
        sys.exit(
            f"{error}\n\nFashion-MNIST is missing. On Debian or Ubuntu install it (30 MB) with\n"
            "    sudo apt-get update && sudo apt-get install dataset-fashion-mnist\n"
            "or fetch the four files from https://github.com/zalandoresearch/fashion-mnist and\n"
            "name their folder: --data DIR"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DEBIAN, help=f"folder; default {DEBIAN}")
    train, test = load(parser.parse_args().data)

    steps = -(-len(train.y) // BATCH)
    optimizer = fnn.adamw(fnn.schedules.cosine(RATE, EPOCHS * steps), weight_decay=DECAY)
    reports = fnn.train(
        loss, init(jax.random.key(0)), optimizer, train,
        batch_size=BATCH, epochs=EPOCHS, key=jax.random.key(1), report_every=20,
    )  # fmt: skip
    start = time.perf_counter()
    with Progress() as progress:
        task = progress.add_task("train", total=EPOCHS * steps)
        for report in reports:
            progress.update(task, completed=report.step, description=f"loss {report.loss:.4f}")
            if report.step % steps == 0:
                line = f"{report}  test {accuracy(report.params, test):.2%}"
                progress.console.print(line, highlight=False)
    print(f"trained in {time.perf_counter() - start:.0f} s, compilation and tests included")
    print(f"accuracy {accuracy(report.params, test):.2%} on {len(test.y)} test images")

    path = Path("out/fashion_mnist.safetensors")
    path.parent.mkdir(exist_ok=True)
    fnn.save(path, report.params)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
