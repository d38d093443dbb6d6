//! Whole Dockerfiles: read, planned, asked about, and every report of them drawn.
#![no_main]

use dockless_fuzz::broken_input;

libfuzzer_sys::fuzz_target!(|text: &[u8]| broken_input::dockerfile(text));
