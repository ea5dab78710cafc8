@0xd24b0f0cf0f9a5e1;

# What a `TerminalSession` of this system does beyond the published schema.

struct EditedLineRequest @0xa1f60cf1f0a3a5c7 {
    # A visible line: as the published `LineRequest`, without a choice of echo.
    prompt @0 :Text;
    maxBytes @1 :UInt32;
    allowEmpty @2 :Bool;
}

interface TerminalExtension @0xe0a5b1d6a4f2c39b {
    # Its methods are called on the `TerminalSession` capability itself, with
    # 0x8000 added to the ordinal. A system without it answers `unimplemented`.
    readEdited @0 (request :EditedLineRequest, history :List(Text))
        -> (status :UInt16, line :Data);
    # Read a visible line as `readLine` does. `history` has earlier lines, oldest
    # first, for the Up and Down keys; the newest that fit are kept for as long as
    # the call waits, at most 64 of them and 4,096 bytes together. `status` is the
    # ordinal of the published `LineStatus`.
}
