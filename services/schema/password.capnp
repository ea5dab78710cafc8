@0xd1a6a0f4c8b35e17;

# Password hashing as a program of its own, so that whoever keeps credentials
# goes on answering while a hash is computed.

interface PasswordHasher @0xa0c4f6f1b7e2d395 {
    # The ability to spend time and memory on Argon2id. It keeps nothing between
    # calls and knows no accounts.
    derive @0 (password :Data, salt :Data) -> (verifier :Text);
    # The PHC string of a new verifier for `password`, with the hasher's own
    # parameters.
    verify @1 (verifier :Text, password :Data) -> (matches :Bool);
    # Whether `verifier`, a PHC string, is of `password`.
}
