//! libFuzzer driver of the target `manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("manifest", data));
