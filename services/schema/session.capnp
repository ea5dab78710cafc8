@0xca48b0521494eab7;

# Sessions: the mechanism that a session service puts its policy on. The
# published capOS schema says what a session looks like to programs
# (`UserSession`, `RestrictedLauncher`); these interfaces are how such objects
# come to be.

interface SessionMint @0xf9c69b7306035225 {
    # The authority to open sessions and to start programs in them. Whoever holds
    # it is trusted with every session: it decides who somebody is. The system
    # grants it as kernel source `session_manager`.
    #
    # What it makes can be given away once by a result or message, across
    # sessions; the receiver's capability is then bound to the receiver's session.
    open @0 (
        sessionId :Data,
        principalId :Data,
        kind :UInt16,
        authStrength :UInt16,
        displayName :Text,
        profile :Text,
        profileClass :UInt16,
        lifetimeNs :UInt64
    ) -> (sessionIndex :UInt16);
    # Open a session. `sessionId` has 1 to 32 bytes and names no open session;
    # `principalId` has at most 32 bytes, `displayName` 96, `profile` 64. `kind`
    # and `authStrength` are ordinals of the published `PrincipalKind` and
    # `AuthStrength` (of the latter `none`, `password`, `publicKey`),
    # `profileClass` is a profile class of the ring ABI. The session ends
    # `lifetimeNs` from now; 2^64 - 1 stands for never, 0 is refused. The result
    # capability in slot `sessionIndex` is its `UserSession`.
    launcher @1 (sessionCapId :UInt32, binaries :List(Text)) -> (launcherIndex :UInt16);
    # Make a `RestrictedLauncher` that starts the named programs, 64 at most, and
    # no others, in the session of the caller's `UserSession` capability
    # `sessionCapId`.
    callerCapability @2 (callId :UInt32, capId :UInt32, interfaceId :UInt64) -> (index :UInt16);
    # While call `callId` is being served by the caller: a copy of capability
    # `capId` of the process that made the call. It must be one that process
    # could have sent as a copy itself, with interface `interfaceId`.
    facet @3 (
        endpointCapId :UInt32,
        interfaceId :UInt64,
        badge :UInt64,
        disclosureScope :UInt64
    ) -> (index :UInt16);
    # The calling side of an endpoint the caller owns, under these labels. It can
    # be copied into any session.
    spawn @4 (
        sessionCapId :UInt32,
        name :Text,
        binaryName :Text,
        grants :AnyPointer
    ) -> (handleIndex :UInt16, capabilityManagerIndex :UInt16);
    # As `ProcessSpawner.spawn`, with the child in the session of `sessionCapId`.
    # `grants` is a `List(CapGrant)` of the published schema. This is the one way
    # by which capabilities of any scope enter another session.
}

interface ThreadControlExtension @0xcbe5643ab3412c89 {
    # What a `ThreadControl` of this system does beyond the published schema;
    # called on the `ThreadControl` capability itself, with 0x8000 added to the
    # ordinal.
    leaveServiceClass @0 () -> ();
    # From now on the calling process runs among the applications, and so does
    # what it starts. There is no way back.
}
