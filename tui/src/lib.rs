//! The operators' program `certwright`: the command line and the dashboard over one client.
//! It holds no truth of its own: everything it shows comes from the controller. Called by `main.rs`.

pub mod cli;
pub mod client;
pub(crate) mod output;
pub mod run;

mod app;
mod keys;
mod screens;
mod terminal;
mod theme;
mod view;
mod widgets;
