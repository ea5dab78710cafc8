//! libFuzzer driver of the target `transfer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("transfer", data));
