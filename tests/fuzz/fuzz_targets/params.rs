//! libFuzzer driver of the target `params`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("params", data));
