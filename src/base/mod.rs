//! The words everything else is written in: digests, references, platforms, the captured
//! environment, time, progress events, secrets, cancellation. Nothing here touches disk or network.

pub mod cancel;
pub mod causes;
pub mod clean;
pub mod csv;
pub mod digest;
pub mod env;
pub mod epoch;
pub mod patterns;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod secret;
pub mod spread;

pub use cancel::Cancel;
pub use digest::{ChainId, DiffId, Digest, Hasher, VertexDigest};
pub use env::Env;
pub use epoch::Epoch;
pub use platform::Platform;
pub use progress::{Event, Progress};
pub use reference::Reference;
pub use secret::Secret;
pub use spread::spread;
