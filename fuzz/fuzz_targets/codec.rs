#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| queuectl::sim::fuzz::codec(bytes));
