//! The same build in every place gives the same image. A simulator (`jail/jail`) makes thirteen places out of this
//! machine; in each, dockless builds a corpus of folders, and what comes out must be what root gets, to the layer's
//! digest. Needs root and what `jail/jail` needs; `DOCKLESS_REACH=all` adds the long half.

mod clean;
mod contained;
mod matrix;
mod picture;
mod place;
mod user;
mod yard;
