//! Words: quoting, escapes and every form of `${}`.
#![no_main]

use dockless_fuzz::broken_input;

libfuzzer_sys::fuzz_target!(|word: &[u8]| broken_input::word(word));
