//! The capOS personality as pure logic: ring, CapTable, ledger, endpoints, kernel objects.
#![no_std]
