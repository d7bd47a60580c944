"""Makes a backup of a snapshot, and brings it up to a later snapshot and to the volume
itself by reading only what they say was changed since. Usage: incremental.py URI NAME
URI NAME ... URI: snapshots with their names, oldest first, and the volume. Ends with 0
if each backup is what is served, and something was left out each time."""

import sys

import nbd

PIECE = 16 << 20


def connect(uri, contexts):
    h = nbd.NBD()
    h.set_handshake_flags(nbd.HANDSHAKE_FLAG_MASK)
    for context in contexts:
        h.add_meta_context(context)
    h.connect_uri(uri)
    for context in contexts:
        if not h.can_meta_context(context):
            sys.exit(f"{uri} does not offer {context}")
    return h


def parts(h, wanted, size):
    """The parts of one of the contexts that were asked for, all of which must be told."""
    at = 0
    while at < size:
        told = {}

        def heard(context, offset, entries, error):
            told[context] = entries

        h.block_status(min(PIECE, size - at), at, heard)
        if "base:allocation" not in told or wanted not in told:
            sys.exit(f"of two contexts {list(told)} were told")
        entries = told[wanted]
        for length, flags in zip(entries[::2], entries[1::2]):
            yield at, length, flags
            at += length
            if at >= size:
                break


def read_all(h):
    return b"".join(h.pread(min(PIECE, h.get_size() - at), at) for at in range(0, h.get_size(), PIECE))


args = sys.argv[1:]
first = connect(args[0], ["base:allocation"])
backup = bytearray(read_all(first))
for i in range(2, len(args), 2):
    since = "drystone:dirty-since-" + args[i - 1]
    h = connect(args[i], ["base:allocation", since])
    size, read = h.get_size(), 0
    backup.extend(bytes(size - len(backup)))
    for offset, length, flags in parts(h, since, size):
        if flags not in (0, 1):
            sys.exit(f"{since} has flags {flags}")
        if flags:
            length = min(length, size - offset)
            backup[offset:offset + length] = h.pread(length, offset)
            read += length
    if bytes(backup) != read_all(h):
        sys.exit(f"the backup made with {since} is not what is served")
    if not 0 < read < size // 4:
        sys.exit(f"{read} of {size} bytes are said to be dirty")
    print(f"{since}: {read} of {size} bytes were read")
