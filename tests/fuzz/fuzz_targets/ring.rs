//! libFuzzer driver of the target `ring`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("ring", data));
