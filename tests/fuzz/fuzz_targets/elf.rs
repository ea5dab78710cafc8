//! libFuzzer driver of the target `elf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::run("elf", data));
