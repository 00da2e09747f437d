//! Budgets that tighten: from what the network takes when they begin to what was asked for, over
//! `budget.ramp_epochs`, geometrically. Layers then give up their bits one after the other, and the
//! network recovers in between.

use serde::{Deserialize, Serialize};

use crate::experiment::Budgets;
use crate::quantizer::memory::{Resource, Usage};
use crate::run::{Budget, Tightening};
use crate::training::schedule::has_come;

/// The way of one resource to its limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Ramp {
    resource: Resource,
    limit: f64,
    /// Amount where it began.
    from: f64,
    /// Epoch at which it began.
    since: f64,
}

/// Limits in force at `epoch`, in the order of `budgets`. A budget that is new or was changed begins
/// a ramp of its own; none goes on beyond epoch `until`.
pub(super) fn limits(
    ramps: &mut Vec<Ramp>,
    budgets: &Budgets,
    usage: &Usage,
    epoch: f64,
    until: f64,
) -> Vec<Budget> {
    ramps.retain(|r| {
        let mut asked = budgets.limits.iter();
        asked.any(|l| (l.resource, l.amount) == (r.resource, r.limit))
    });
    let all = budgets.limits.iter();
    all.map(|asked| {
        let resource = asked.resource;
        let known = ramps.iter().position(|r| r.resource == resource);
        let place = known.unwrap_or_else(|| {
            ramps.push(Ramp {
                resource,
                limit: asked.amount,
                from: usage.amount(resource),
                since: epoch,
            });
            ramps.len() - 1
        });
        let ramp = &mut ramps[place];
        let tightening = ramp.tightening(budgets, until);
        if has_come(tightening.until, epoch) {
            ramp.arrive();
        }
        Budget {
            resource,
            limit: tightening.at(epoch),
        }
    })
    .collect()
}

impl Ramp {
    /// It is at its limit; more epochs, or a longer ramp, do not loosen it again.
    pub(super) fn arrive(&mut self) {
        self.from = self.limit;
    }

    /// As it is to be under these settings.
    pub(super) fn tightening(&self, budgets: &Budgets, until: f64) -> Tightening {
        Tightening {
            resource: self.resource,
            from: self.from,
            to: self.limit,
            since: self.since,
            until: (self.since + budgets.ramp_epochs).min(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{BudgetMethod, Limit};

    fn budgets(limit: f64, ramp_epochs: f64) -> Budgets {
        Budgets {
            limits: vec![Limit {
                resource: Resource::Weights,
                amount: limit,
                lambda: 0.1,
            }],
            method: BudgetMethod::Projection,
            ramp_epochs,
        }
    }

    fn usage(weights: f64) -> Usage {
        Usage {
            weights,
            ..Usage::default()
        }
    }

    #[test]
    fn limits_fall_geometrically_and_stop_at_what_was_asked_for() {
        let (mut ramps, b) = (Vec::new(), budgets(25.0, 2.0));
        let mut at = |epoch| limits(&mut ramps, &b, &usage(100.0), epoch, 9.0)[0].limit;
        assert_eq!([3.0, 4.0, 5.0, 8.0].map(&mut at), [100.0, 50.0, 25.0, 25.0]);
    }

    #[test]
    fn a_changed_limit_begins_anew_from_where_the_network_is() {
        let mut ramps = Vec::new();
        limits(&mut ramps, &budgets(25.0, 2.0), &usage(100.0), 0.0, 99.0);
        let tighter = budgets(16.0, 2.0);
        let mut at = |epoch| limits(&mut ramps, &tighter, &usage(25.0), epoch, 99.0)[0].limit;
        assert_eq!([10.0, 11.0, 12.0].map(&mut at), [25.0, 20.0, 16.0]);
    }

    #[test]
    fn it_ends_in_time_and_a_looser_limit_holds_at_once() {
        let mut ramps = Vec::new();
        let b = budgets(25.0, 100.0);
        let mut at = |budgets, taken, epoch, until| {
            limits(&mut ramps, budgets, &usage(taken), epoch, until)[0].limit
        };
        assert_eq!(at(&b, 100.0, 0.0, 4.0), 100.0);
        assert_eq!(at(&b, 100.0, 2.0, 4.0), 50.0);
        assert_eq!(at(&b, 100.0, 4.0, 4.0), 25.0);
        assert_eq!(at(&b, 25.0, 5.0, 99.0), 25.0);
        let loose = budgets(200.0, 100.0);
        assert_eq!(at(&loose, 100.0, 2.0, 4.0), 200.0);
    }
}
