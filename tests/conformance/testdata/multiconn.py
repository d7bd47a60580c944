"""Holds an NBD server to NBD_FLAG_CAN_MULTI_CONN: what one connection was told is
written, or flushed, every other connection sees, and a flush on one covers what
was answered on all. Usage: multiconn.py URI SEED ROUNDS. Ends with 0 if it is so."""

import random
import sys

import nbd

CONNECTIONS = 4
BLOCK = 512

uri, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)

handles = []
for _ in range(CONNECTIONS):
    h = nbd.NBD()
    h.connect_uri(uri)
    handles.append(h)
size = handles[0].get_size()
for h in handles:
    if not h.can_multi_conn() or not h.can_flush() or h.get_size() != size:
        sys.exit("the server does not offer several connections to one disk")

shadow = bytearray(size)


def check(h, offset, length, what):
    got = h.pread(length, offset)
    if got != bytes(shadow[offset:offset + length]):
        sys.exit(f"{what}: another connection reads something else at {offset}+{length}")


def place():
    length = rng.randint(1, 128) * BLOCK
    return rng.randrange(0, (size - length) // BLOCK + 1) * BLOCK, length


def finish(h, cookies):
    while cookies:
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
        if cookies:
            h.poll(-1)


def one_writes():
    """Write and flush on one, read on every other."""
    writer = rng.choice(handles)
    offset, length = place()
    shadow[offset:offset + length] = rng.randbytes(length)
    writer.pwrite(bytes(shadow[offset:offset + length]), offset)
    writer.flush()
    for h in handles:
        check(h, offset, length, "write and flush")


def one_zeroes():
    """The same with zeroes, and with FUA in place of the flush."""
    writer = rng.choice(handles)
    offset, length = place()
    shadow[offset:offset + length] = bytes(length)
    writer.zero(length, offset, nbd.CMD_FLAG_FUA)
    for h in handles:
        check(h, offset, length, "zero with FUA")


def all_write():
    """Each writes a part of its own, all at once; one that may have written nothing
    flushes; each reads what the next one wrote."""
    share = size // CONNECTIONS
    under_way, places = [], []
    for i, h in enumerate(handles):
        cookies = []
        at = i * share + rng.randrange(0, share // BLOCK // 2) * BLOCK
        for _ in range(rng.randint(1, 8)):
            length = rng.randint(1, 32) * BLOCK
            if at + length > (i + 1) * share:
                break
            piece = rng.randbytes(length)
            shadow[at:at + length] = piece
            cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(piece)), at))
            places.append((i, at, length))
            at += length
        under_way.append(cookies)
    for h, cookies in zip(handles, under_way):
        finish(h, cookies)
    rng.choice(handles).flush()
    for i, at, length in places:
        check(handles[(i + 1) % CONNECTIONS], at, length, "writes of all, flush of one")


for n in range(rounds):
    rng.choice([one_writes, one_writes, one_zeroes, all_write])()
for h in handles:
    for offset in range(0, size, 1 << 20):
        check(h, offset, 1 << 20, "at the end")
    h.shutdown()
print(f"{rounds} rounds over {CONNECTIONS} connections")
