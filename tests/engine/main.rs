//! Builds through the local engine, with no command line around it: what is built, what is remembered, what is left
//! when a build is killed.

mod build;
mod child;
mod containers;
mod contexts;
mod fixture;
mod llb;
mod platforms;
mod processes;
mod steps;
mod warm;
