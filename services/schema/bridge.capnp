@0xf3a1c07d95be6e12;

# Control messages between two protection domains that call each other with
# seL4's own IPC, without the ring. A method's ordinal is the label of the
# message; its params and results have no pointers, and travel as the words of
# their data section. At most one capability goes with a message, beside its
# words. An answer's label is 0, or 0x100 where the call is refused.

interface Bridge @0xe1d4b27c60a3985f {
    # What a server offers to the one client it knows by its badge.
    echo @0 () -> ();
    # Answers as many words as it is called with.
    openSession @1 (parent :UInt32) -> (session :UInt32);
    # A capability to the server for a session of its own comes with the answer.
    # It derives from the server's root for sessions (`parent` 0), or from an
    # open session; chains and the number of open sessions are bounded.
    closeSession @2 (session :UInt32) -> (live :UInt32);
    # Gives a session back; answers how many are left. A copy of its capability
    # works until `revokeSessions`.
    registerQueue @3 (queue :UInt32) -> ();
    # With it comes a notification, badged by the client so that the badge tells
    # which queue is complete.
    kick @4 (queue :UInt32, head :UInt32) -> (taken :UInt32);
    # Takes the descriptors up to `head` and signals the queue's notification.
    # A queue with a malformed descriptor takes nothing more.
    preGrantMemory @5 (frames :UInt32) -> ();
    # With it comes a CNode that holds `frames` frames, from its first slot on.
    useMemory @6 () -> (usable :UInt32);
    # Maps every frame that was granted, writes to each and reads all back.
    returnMemory @7 () -> (frames :UInt32);
    # Unmaps the frames and puts them back into their CNode.
    revokeSessions @8 () -> ();
    # Ends every session, with each copy of its capability.
    countCalls @9 () -> (calls :UInt64);
    # How many calls have arrived, refused ones and this one included.
}
