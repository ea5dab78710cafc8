@0x96fb27ef19ddc9a5;

# What init serves: to those who look after services, and to services that are
# started again and are not to forget.

interface Supervisor @0xda9ab54ecadd28b3 {
    # The authority to end services of the boot manifest, one at a time, each
    # time for a new instance of the same: the name, the program, the
    # capabilities. It gives no part in what they do.
    restart @0 (service :Text) -> ();
    # End a service and start it again, whatever its restart policy; answered
    # when the new instance has been started. Calls that were being served are
    # answered `disconnected`, calls that wait are the new instance's. What the
    # service failed before is forgotten. `invalidArgument` if the manifest has
    # no such service, `failed` if it ended for good or cannot be started.
}

interface Keepsake @0x9cd2fc1d9c3acc45 {
    # A note of one service for its next instance, as long as init runs.
    keep @0 (note :Data) -> ();
    # Keep `note`, of at most 1024 bytes, in place of the last one.
    kept @1 () -> (note :Data);
    # The note that was kept last; empty if none was.
}
