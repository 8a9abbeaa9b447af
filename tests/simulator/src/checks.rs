//! The promises, checked with each call and each request. The documents that make them are named at each check.

use crate::scenario::{Plan, StoreKind};
use amp_token_simulated::sys::simulation::{self, Nanos, SECOND, violation};
use std::collections::{BTreeMap, BTreeSet};

/// After a disturbance of the store or the service, what the processes know of each other is not complete for so long:
/// two times the longest timeout.
const SETTLE: Nanos = 120 * SECOND;

/// The caller with a usable token that refreshes it waits for at most this time (docs/configuration.md, time limits).
const REFRESH_TIMEOUT: Nanos = 2 * SECOND;

/// The longest pause after a failure (docs/troubleshooting.md), unless the server asks for a longer one.
const BACKOFF_CAP: Nanos = 60 * SECOND;

/// More requests than a process sends in a minute. A flight sends at most `retries` + 1 = 4; the pauses between flights
/// are random below 0.5 s, 1 s, 2 s, …, 60 s, and 25 flights in a minute would need 18 draws below a sum of 60 s.
const MOST_IN_A_MINUTE: usize = 100;

/// A token that the service issued.
#[derive(Clone, Debug)]
pub struct Issued {
    pub at: Nanos,
    /// When it was asked for.
    pub asked: Nanos,
    pub lifetime: Nanos,
    pub revoked: bool,
    /// Whether it was issued again later, as one with a shorter lifetime.
    pub again: bool,
}

impl Issued {
    /// The last part of the lifetime, in which a token is not handed out (README.md).
    fn margin(&self) -> Nanos {
        (self.lifetime / 10).min(10 * SECOND)
    }
}

/// Those who share a token: a store, and a version of the secret.
pub type Group = (StoreKind, usize, u64);

/// A call that returned.
pub struct Call {
    pub what: &'static str,
    pub process: u64,
    pub started: Nanos,
    /// The time that it took by the clock of its machine.
    pub took: Nanos,
    /// The longest time that it may take.
    pub limit: Nanos,
    /// Whether the cache had a token that could have been returned, from its start to its end.
    pub had_token: bool,
    pub rejecter: bool,
    /// The token, or the failure.
    pub result: Result<String, String>,
    pub min_validity: Nanos,
}

#[derive(Default)]
struct ProcessChecks {
    /// Requests that are on their way, and with whom their tokens will be shared.
    flying: BTreeMap<u64, Option<Group>>,
    /// The clock of the machine before which no request may be sent, as the server asked.
    hold: Nanos,
    /// When requests began.
    requests: Vec<Nanos>,
    /// Calls that waited while there was a token: from, until.
    waited: Vec<(Nanos, Nanos)>,
    /// Calls in progress that want more than other callers.
    demanding: u32,
    rejected: BTreeSet<String>,
    /// Until when failures may be due to what this process has met.
    excused: Nanos,
    /// The token that it inherited. A child refreshes it at a time of its own.
    inherited: Option<String>,
}

/// What was seen up to now.
pub struct Checks {
    pub tokens: BTreeMap<String, Issued>,
    processes: BTreeMap<u64, ProcessChecks>,
    /// Per group: until when the store cannot be relied on.
    disturbed: BTreeMap<(StoreKind, usize), Nanos>,
    /// The newest token of a group, and when it arrived.
    newest: BTreeMap<Group, (String, Nanos)>,
    /// Per group: when the server asked for a delay, until when, and of whom.
    holds: BTreeMap<Group, (Nanos, Nanos, u64)>,
    /// Since when the service works and responds soon.
    pub service_works_since: Nanos,
    /// Per machine: when its clocks were last disturbed.
    machines: Vec<Nanos>,
    requests: u64,
    pub calls: u64,
}

impl Checks {
    pub fn new(machines: usize) -> Self {
        Checks {
            tokens: BTreeMap::new(),
            processes: BTreeMap::new(),
            disturbed: BTreeMap::new(),
            newest: BTreeMap::new(),
            holds: BTreeMap::new(),
            service_works_since: 0,
            machines: vec![Nanos::MIN / 2; machines],
            requests: 0,
            calls: 0,
        }
    }

    pub fn requests(&self) -> u64 {
        self.requests
    }

    fn process(&mut self, id: u64) -> &mut ProcessChecks {
        self.processes.entry(id).or_default()
    }

    /// A store does not do what it should.
    pub fn disturb(&mut self, store: StoreKind, place: usize, until: Nanos) {
        let entry = self.disturbed.entry((store, place)).or_insert(Nanos::MIN);
        *entry = (*entry).max(until + SETTLE);
    }

    /// What a store held is not what it holds.
    pub fn damaged(&mut self, store: StoreKind, place: usize) {
        self.newest.retain(|group, _| (group.0, group.1) != (store, place));
        self.holds.retain(|group, _| (group.0, group.1) != (store, place));
        self.disturb(store, place, simulation::now());
    }

    /// The clocks of a machine do not do what they should, or its processes stand still.
    pub fn disturb_machine(&mut self, machine: usize, shared: usize) {
        let now = simulation::now();
        self.machines[machine] = now;
        self.disturb(StoreKind::Local, machine, now);
        self.disturb(StoreKind::Network, shared, now);
        self.disturb(StoreKind::Redis, 0, now);
    }

    fn is_calm(&self, group: Group) -> bool {
        let now = simulation::now();
        let disturbed = self.disturbed.get(&(group.0, group.1)).copied().unwrap_or(Nanos::MIN);
        now >= disturbed && now >= self.service_works_since + SETTLE
    }

    /// What the child of a fork must keep to.
    pub fn forked(&mut self, parent: u64, child: u64, inherited: Option<String>) {
        let (hold, rejected, excused) = {
            let parent = self.process(parent);
            (parent.hold, parent.rejected.clone(), parent.excused)
        };
        *self.process(child) = ProcessChecks { hold, rejected, excused, inherited, ..ProcessChecks::default() };
    }

    pub fn demand(&mut self, process: u64, by: i32) {
        let process = self.process(process);
        process.demanding = process.demanding.wrapping_add_signed(by);
    }

    pub fn rejected(&mut self, process: u64, token: &str) {
        self.process(process).rejected.insert(token.to_owned());
    }

    /// A request is sent.
    pub fn request(&mut self, process: u64, plan: &Plan, group: Option<Group>, cached: Option<&str>) -> u64 {
        let now = simulation::now();
        self.requests += 1;
        let number = self.requests;
        let machine = plan.machine;
        let (mono, tolerance) = (simulation::monotonic_of(machine), simulation::tolerance_of(machine));
        // DESIGN: one request is in flight, however many threads ask.
        if !self.process(process).flying.is_empty() {
            violation("one request: a process sends a request while another one is in flight");
        }
        // README: never before Retry-After; inherited by forked children.
        let early = self.process(process).hold - mono;
        if early > tolerance {
            violation(format!("backoff: a request is sent {:.3} s before Retry-After", seconds(early)));
        }
        let minute = now - 60 * SECOND;
        let this = self.process(process);
        this.requests.retain(|at| *at > minute);
        this.requests.push(now);
        if this.requests.len() > MOST_IN_A_MINUTE {
            violation(format!("backoff: more than {MOST_IN_A_MINUTE} requests in a minute"));
        }
        self.check_need(process, plan, group, cached);
        if let Some(group) = group {
            self.check_group(process, plan, group);
        }
        self.process(process).flying.insert(number, group);
        number
    }

    /// README: a token is used until 80 % of its lifetime; DESIGN: windows scale with the lifetime.
    fn check_need(&mut self, process: u64, plan: &Plan, group: Option<Group>, cached: Option<&str>) {
        let now = simulation::now();
        if plan.min_validity_ms > 0 || self.process(process).demanding > 0 {
            return;
        }
        let inherited = self.process(process).inherited.clone();
        let newest = group.filter(|group| self.is_calm(*group)).and_then(|group| self.newest.get(&group).cloned());
        let shared = newest.filter(|(_, arrived)| now > arrived + SECOND).map(|(token, _)| token);
        let is_shared = shared.is_some();
        for token in
            [cached.map(str::to_owned).filter(|token| Some(token) != inherited.as_ref()), shared].into_iter().flatten()
        {
            let issued = &self.tokens[&token];
            let age = now - issued.asked;
            let clocks_are_fine = self.machines[plan.machine] < issued.asked;
            // What was issued again has a shorter lifetime, in whole seconds, for those who got it then.
            if issued.again {
                continue;
            }
            let rejected = issued.revoked || self.processes.values().any(|process| process.rejected.contains(&token));
            if clocks_are_fine && !rejected && age < issued.lifetime * 7 / 10 {
                let whose = if is_shared { "of those who share a store" } else { "of the cache" };
                let part = 100 * age / issued.lifetime;
                violation(format!("one request: a request is sent although the token {whose} is {part} % old"));
                return;
            }
        }
    }

    /// README: processes and machines that share a store share a single request.
    fn check_group(&mut self, process: u64, plan: &Plan, group: Group) {
        let now = simulation::now();
        // A process that was itself told to wait, and did, repeats its request without a look at the store, after a
        // pause of 8 s at most.
        let waited = simulation::monotonic_of(plan.machine) - self.process(process).hold;
        let repeats = self.process(process).hold > 0 && waited < 10 * SECOND;
        if let Some((since, until, of)) = self.holds.get(&group).copied() {
            let undisturbed =
                self.disturbed.get(&(group.0, group.1)).is_none_or(|disturbed| *disturbed - SETTLE < since);
            if of != process && !repeats && undisturbed && now > since + 3 * SECOND && now < until - SECOND {
                violation(format!(
                    "backoff: a request is sent {:.3} s before the Retry-After that process {of} was told",
                    seconds(until - now)
                ));
            }
        }
        if !self.is_calm(group) || plan.no_threads {
            return;
        }
        let others = self.processes.iter().filter(|(id, other)| **id != process && !other.flying.is_empty());
        let others: Vec<_> =
            others.filter(|(_, other)| other.flying.values().any(|of| *of == Some(group))).map(|(id, _)| *id).collect();
        if let Some(other) = others.iter().find(|id| simulation::is_alive(**id)) {
            violation(format!("one request: process {other}, which shares the store, has a request in flight"));
        }
    }

    /// A request has ended: with a token, or else perhaps with a delay that the server asks for.
    pub fn response(
        &mut self,
        process: u64,
        number: u64,
        plan: &Plan,
        group: Option<Group>,
        result: Result<&str, (Option<Nanos>, bool)>,
    ) {
        let now = simulation::now();
        let mono = simulation::monotonic_of(plan.machine);
        let this = self.process(process);
        this.flying.remove(&number);
        match result {
            Ok(token) => {
                if let Some(group) = group {
                    // It is not saved, or not found, if the store does not work.
                    if self.disturbed.get(&(group.0, group.1)).is_none_or(|until| now > until - SETTLE + 10 * SECOND) {
                        self.newest.insert(group, (token.to_owned(), now));
                    } else {
                        self.newest.remove(&group);
                    }
                    self.holds.remove(&group);
                }
            }
            Err((asked, shared)) => {
                this.excused = this.excused.max(now + BACKOFF_CAP + asked.unwrap_or(0) + 5 * SECOND);
                let Some(asked) = asked else { return };
                this.hold = this.hold.max(mono + asked);
                if let Some(group) = group.filter(|group| shared && group.0 != StoreKind::Network) {
                    let hold = (now, now + asked, process);
                    let known = self.holds.get(&group).is_some_and(|(_, until, _)| *until >= hold.1);
                    if !known {
                        self.holds.insert(group, hold);
                    }
                }
            }
        }
    }

    /// A process is gone, with its requests.
    pub fn gone(&mut self, process: u64, group: Option<Group>) {
        self.process(process).flying.clear();
        if let Some((store, place, _)) = group {
            self.disturb(store, place, simulation::now());
        }
    }

    /// A call has returned.
    pub fn returned(&mut self, call: &Call, plan: &Plan, group: Option<Group>, secret_is_valid: bool) {
        let now = simulation::now();
        self.calls += 1;
        let tolerance = simulation::tolerance_of(plan.machine);
        // DESIGN: every call ends by its deadline.
        if call.took > call.limit + tolerance {
            let (took, limit) = (seconds(call.took), seconds(call.limit));
            violation(format!("deadline: {} took {took:.3} s, and may take {limit:.3} s", call.what));
        }
        if call.had_token && !call.rejecter {
            self.check_wait(call, tolerance);
        }
        match &call.result {
            Ok(token) => self.check_token(call, token, plan),
            Err(failure) => self.check_failure(call, failure, plan, group, secret_is_valid, now),
        }
    }

    /// README: nobody waits while a token is valid, but for the one that refreshes it, for 2 seconds.
    fn check_wait(&mut self, call: &Call, tolerance: Nanos) {
        if call.took > REFRESH_TIMEOUT + tolerance {
            let took = seconds(call.took);
            violation(format!("waiting: {} waited for {took:.3} s while there was a valid token", call.what));
        }
        let now = simulation::now();
        if call.took <= tolerance {
            return;
        }
        let waited = (call.started, now);
        let this = self.process(call.process);
        if this.waited.iter().any(|other| other.0 < waited.1 - tolerance && waited.0 < other.1 - tolerance) {
            violation(format!("waiting: a second caller of {} waited while there was a valid token", call.what));
        }
        this.waited.push(waited);
    }

    /// README: never an expired token. The API judges by its own clock, which is that of the world.
    fn check_token(&mut self, call: &Call, token: &str, plan: &Plan) {
        let now = simulation::now();
        let Some(issued) = self.tokens.get(token) else {
            return violation(format!("token: {token} is not a token of the service"));
        };
        let left = issued.at + issued.lifetime - now;
        if left <= 0 {
            return violation(format!(
                "expired token: {token} was returned {:.3} s after it had expired",
                seconds(-left)
            ));
        }
        // It is not returned in its last seconds. Clocks may differ from the service's by their drift, a record may be
        // that much younger on another machine (docs/store-format.md), and clocks tick.
        let lifetime = issued.lifetime;
        let slack = lifetime / 1000 + (2 * SECOND).min(lifetime / 20) + simulation::tolerance_of(plan.machine);
        if issued.again {
            return;
        }
        let promised = if self.machines[plan.machine] >= issued.at {
            issued.margin()
        } else {
            issued.margin().max(call.min_validity)
        };
        if left < promised - slack && call.what != "try_get" {
            let (left, promised) = (seconds(left), seconds(promised));
            violation(format!("expired token: {token} is valid for {left:.3} s, and should be for {promised:.3} s"));
        }
    }

    /// DESIGN: one caller's trouble is its own; a store that is broken costs a log line, never a token.
    fn check_failure(
        &mut self,
        call: &Call,
        failure: &str,
        plan: &Plan,
        group: Option<Group>,
        secret_is_valid: bool,
        now: Nanos,
    ) {
        if call.what == "try_get" || !secret_is_valid || call.min_validity > 0 || call.rejecter {
            return;
        }
        if call.had_token {
            return violation(format!("failure: {} failed although there was a valid token: {failure}", call.what));
        }
        let since = self.service_works_since;
        // A pause is measured by the monotonic clock, which does not end while that stands still.
        let machine_is_fine = now - self.machines[plan.machine] > SETTLE && !simulation::is_suspended(plan.machine);
        let excused = self.process(call.process).excused;
        // The failure of another process is shared for a second, and its Retry-After for its time.
        let held = group.and_then(|group| self.holds.get(&group)).is_some_and(|hold| now < hold.1 + 5 * SECOND);
        if now - since > SETTLE && machine_is_fine && now > excused && !held {
            violation(format!("failure: {} failed although the service works: {failure}", call.what));
        }
    }
}

pub fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}
