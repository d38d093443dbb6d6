//! Flags of every instruction, the lists inside `--mount`, and the lists that the command line takes.
#![no_main]

use dockless_fuzz::broken_input;

libfuzzer_sys::fuzz_target!(|flags: &[u8]| broken_input::flags(flags));
