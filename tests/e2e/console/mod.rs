//! The console: signing in, what people see, what they do; by plain requests where an attack is made by hand, and in a
//! real Chromium where people are at work.

mod browser;
mod door;
mod forms;
mod replays;
mod visit;
