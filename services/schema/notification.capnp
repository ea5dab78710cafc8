@0xb05042cc56a521d9;

# Notification objects: a word of bits that one side sets and another waits
# for. The published capOS schema has none; these interfaces are additions and
# change nothing in it.

interface Notification @0xb73d1b1a541db607 {
    # A word of 64 bits, zero at first. Whoever holds this may set bits, wait
    # for bits and take them, and make capabilities that may only set them.
    #
    # Signals coalesce: bits that are set before anyone takes them are taken
    # together. With several waiters, the first in line takes the whole word and
    # the others go on waiting.
    signal @0 (bits :UInt64) -> ();
    # Set `bits`, of which there must be at least one. A waiting call takes them
    # at once.
    wait @1 () -> (bits :UInt64);
    # Take the word, which is then zero; blocks (via `cap_enter`) while it is
    # zero.
    poll @2 () -> (bits :UInt64);
    # Take the word as it is, zero or not, without blocking.
    signaller @3 (badge :UInt64) -> (signallerIndex :UInt16);
    # Make a `Signaller` for the bits of `badge`; zero stands for all of them.
    # It is a transferred result capability; `signallerIndex` is its zero-based
    # slot in the CQE result-cap list.
}

interface Signaller @0xbd80397dc421708d {
    # The authority to set some bits of a `Notification`, and nothing else.
    # Which bits was decided when it was made and cannot be seen or widened.
    signal @0 (bits :UInt64) -> ();
    # Set `bits`, which must be among those this capability is for. Zero sets
    # all of them, as a badged seL4 notification capability does.
}

interface SpawnerExtension @0xeeb3d76a015023c0 {
    # What a `ProcessSpawner` of this system does beyond the published schema.
    # Its methods are called on the `ProcessSpawner` capability itself, with
    # 0x8000 added to the ordinal: published ordinals count upwards from zero
    # and stay below. A system without it answers `unimplemented`.
    createNotification @0 () -> (notificationIndex :UInt16);
    # Make a `Notification`, as `createPipe` makes a pipe: it is a transferred
    # result capability in slot `notificationIndex`.
    createEndpoint @1 () -> (endpointIndex :UInt16);
    # Make an endpoint that the caller owns; its owner side is a transferred
    # result capability in slot `endpointIndex`. Granted raw to a program, it has
    # several owners: when one of them ends, the calls it was serving are
    # answered `disconnected`, and calls that wait stay for the next owner that
    # receives.
}
