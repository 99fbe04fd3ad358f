//! A rollout: the way of one agent from its stable release to a candidate, as one state machine of plain values.
//!
//! ```text
//!            outside says yes        sized, ready, attached            the usual way
//!   Waiting ────────────────► Starting ──┬───────────────► Step 0 ─► Step 1 ─► … ─┐
//!      │                         │       ├─ mirror ─► Mirror ─┘                    │
//!      │                         │       ├─ blueGreen ─► Smoke ────────────────────┤
//!      │                         │       ├─ abTest ─► Experiment ──────────────────┤
//!      │                         │       └─ on the way back, or rolling ───────────┤
//!      │                         │                                                 ▼
//!      │   Git, a person, the judge, or a failure: from every phase            Promoting ─► Baking ─► Keeping ─► Done
//!      └─────────────────────────┴──────────────────► Aborting ─► Aborted           (all with the same way to Aborting)
//! ```
//!
//! # Laws
//!
//! 1. [`Rollout::step`] is the only thing that moves. What the target shall look like ([`Rollout::wanted`]) is a function
//!    of the state alone, so that whoever carries it out may do so twice, late, or after a restart.
//! 2. Nothing that was asked for is believed before it was seen: instances count when they are ready, weights when the
//!    route says that they are in force. A step's time begins then.
//! 3. The candidate's weight rises only while its set is large enough, ready and attached to the route. Without a ready
//!    instance it has none. Where stable has no ready instance, a candidate that is due any traffic takes all of it,
//!    until stable is back; no step of a canary goes on by itself meanwhile.
//! 4. An abort asks nobody but the side it goes to: the weight goes to stable as soon as that has a ready instance, and
//!    the candidate never gets any again.
//! 5. A freeze, a pause, a gate, a missing verdict: each holds, none aborts. Aborts, reverts and rollbacks pass all of them.
//! 6. What blames nobody quarantines nobody: a deadline, missing data, a person, a newer commit.
//!
//! # What the others do
//!
//! `desired` says what is declared; `judge` says what was measured means; `reconcile` feeds events and carries
//! [`Wanted`] out; `record` keeps [`Rollout::saved`]. The evidence of the judge is kept beside it, by its own words.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::string_slice))]

mod course;
mod event;
mod instances;
mod judging;
mod outline;
mod pack;
mod question;
mod reason;
mod shown;
mod state;
mod step;
mod wait;
mod wave;

pub use course::{bake, experiment, judged};
pub use event::{Answer, Closed, Deed, Event, Illegal, News, Outside, Person, Smoked};
pub use instances::{Carrier, Instances, Sides, rounded};
pub use judging::Judging;
pub use outline::{Known, outline};
pub use question::{GateQuestion, Measurement, Measurements, Question};
pub use reason::{Aftermath, Reason, evidence, findings};
pub use state::{Beginning, Phase, Rollout, Routes, Split, Unreadable, VERSION, Wanted, Way};
pub use wait::Wait;
pub use wave::{Room, Standing as WaveStanding, Wave};
