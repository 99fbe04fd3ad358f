//! Stand-in until the room is merged.
use crate::model::Timestamp;
use crate::rollout::{Measurements, Question};
#[derive(Default)]
pub struct Providers;
impl Providers {
    pub async fn measure(&self, _: &Question, at: Timestamp) -> Measurements { Measurements { at, metrics: Default::default() } }
}
