//! The VEI's driver.
mod cli;
mod config;
mod guest;
mod logging;
mod dataplane {
    pub mod counters;
    pub mod idle;
    pub mod transmit;
}
mod manage {
    pub mod control;
}
