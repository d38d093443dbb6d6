//! One file a verb: what is typed, what it means, what is printed.

pub mod build;
pub mod container;
pub mod containers;
pub mod cp;
pub mod debug;
pub mod disk;
pub mod doctor;
pub mod expand;
pub mod history;
pub mod images;
pub mod import;
pub mod inspect;
pub mod load;
pub mod login;
pub mod pages;
pub mod pull;
pub mod push;
pub mod resource;
pub mod rmi;
pub mod save;
pub mod tag;
pub mod task;
pub mod unpack;
pub mod version;
