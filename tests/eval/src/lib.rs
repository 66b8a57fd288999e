//! The paper's evaluation (§V, §VII): which runs there are, who carries them out, and what they say.
//!
//! ```text
//!  grid ──cells──► campaign ──cell──► Backend (sim, vm) ──Run──► store (JSON lines)
//!                                                                   │
//!                  model (slim_core) ──► figures, tables, claims ◄──┘ stats
//!                                                  │
//!                                     SVG, CSV, JSON ──► report (one HTML page)
//! ```
//!
//! - [`grid`]: what is run, in the full and in the quick plan;
//! - [`backend`]: what carries out one cell of the grid; [`sim`] does it in virtual time, [`vm`] with booted images;
//! - [`record`]: what one run came to;
//! - [`store`]: runs that are done, so that an evaluation can be resumed;
//! - [`campaign`]: cells that are not done yet, on all processors, with progress;
//! - [`results`], [`stats`]: runs by setup, means and their confidence intervals;
//! - [`figures`], [`table_2`], [`experiments`], [`claims`]: what is made of them;
//! - [`cost`]: what saving statelet bytes costs in time;
//! - [`report`]: all of it as files.

#![forbid(unsafe_code)]

pub mod backend;
pub mod campaign;
pub mod claims;
pub mod cost;
pub mod experiments;
pub mod figures;
pub mod grid;
pub mod record;
pub mod report;
pub mod results;
pub mod sim;
pub mod stats;
pub mod store;
pub mod table_2;
pub mod vm;
