//! What the fuzz targets share with the property tests of dockless.

#[path = "../../tests/support/broken_input.rs"]
pub mod broken_input;
