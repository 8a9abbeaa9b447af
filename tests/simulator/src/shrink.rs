//! Shrinks a failing scenario: leaves out events as long as the same promise is broken (delta debugging).

use crate::scenario::Scenario;
use crate::world::{self, Outcome};
use amp_token_simulated::sys::simulation::Plant;

/// How many scenarios are tried at most.
const MOST_RUNS: usize = 3_000;

/// The part of a violation that names the promise.
pub fn promise(violation: &str) -> &str {
    violation.split(':').next().unwrap_or(violation)
}

/// A scenario with few events that breaks the same promise, its outcome, and how many were tried.
pub fn shrink(scenario: &Scenario, outcome: &Outcome, plant: Plant) -> (Scenario, Outcome, usize) {
    let wanted = promise(&outcome.violations[0]).to_owned();
    let mut best = scenario.clone();
    let mut runs = 0;
    let mut fails = |events: &Scenario| {
        runs += 1;
        let outcome = world::run(events, false, plant);
        outcome.violations.first().is_some_and(|violation| promise(violation) == wanted)
    };
    // What comes after the violation is of no use.
    let mut shorter = best.clone();
    let at = (outcome.virtual_seconds * 1e9) as i64;
    shorter.events.retain(|event| event.at <= at);
    if fails(&shorter) {
        best = shorter;
    }
    let mut size = best.events.len().div_ceil(2);
    let mut tried = 0;
    while size > 0 && tried < MOST_RUNS {
        let mut from = 0;
        let mut shrunk = false;
        while from < best.events.len() && tried < MOST_RUNS {
            let mut smaller = best.clone();
            smaller.events.drain(from..(from + size).min(best.events.len()));
            tried += 1;
            if fails(&smaller) {
                best = smaller;
                shrunk = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !shrunk {
            break;
        }
        if !shrunk || size > best.events.len() {
            size = (size / 2).max(usize::from(size > 1));
        }
    }
    let outcome = world::run(&best, true, plant);
    (best, outcome, runs + 1)
}
