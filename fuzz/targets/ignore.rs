//! Ignore files, and the paths that they are asked about.
#![no_main]

use dockless_fuzz::broken_input;

libfuzzer_sys::fuzz_target!(|text: &[u8]| broken_input::ignore(text));
