//! libFuzzer driver of the target `gate`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("gate", data));
