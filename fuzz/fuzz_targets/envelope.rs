#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| khala_fuzz::envelope::run(bytes));
