//! What happens in one simulation: a list of events, made from a seed. Leaving events out makes another scenario, which
//! is how a failing one is shrunk.

use amp_token_simulated::store::simulated::{DiskDamage, RedisDamage};
use amp_token_simulated::sys::simulation::{Nanos, Rng, SECOND};

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub machines: Vec<MachinePlan>,
    /// The lifetime of tokens at the beginning, in seconds.
    pub lifetime: i64,
    /// When the service, the stores and the machines work again, for good.
    pub end: Nanos,
    pub events: Vec<Event>,
}

/// The clocks of a machine.
#[derive(Clone, Copy, Debug)]
pub struct MachinePlan {
    pub wall_off: Nanos,
    pub ppm: i64,
    pub tick: Nanos,
    pub oversleep: Nanos,
}

/// Something that happens at a point of world time.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: Nanos,
    pub what: What,
}

/// Where a process shares its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    None,
    /// The disk of its machine.
    Local,
    /// A directory on a file server.
    Network,
    Redis,
}

/// A process, as it is started.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub machine: usize,
    pub store: StoreKind,
    pub own_transport: bool,
    pub background: bool,
    pub timeout_ms: i64,
    pub retries: i64,
    pub min_validity_ms: i64,
    pub secret_in_file: bool,
    pub no_threads: bool,
}

/// What a thread of a process does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Get,
    /// With a validity in milliseconds.
    GetFor(i64),
    TryGet,
    /// Gets a token, sends a request with it, and reports the response if it is a rejection.
    Use,
    /// The same, but the API always rejects this caller.
    UseWithoutPermission,
    /// Gets a token and invalidates it, as some programs do after any failure.
    Invalidate,
    /// Asks until it has a token, as a program does that cannot go on without one.
    Insist(Nanos),
    /// Forks a child with this number.
    Fork(u64),
    Exit,
}

/// How the service behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Works,
    Refuses,
    Unresolved,
    /// Accepts connections and never responds.
    Silent,
    Status(u16, Option<i64>),
    Garbage,
    /// Issues a token, and the connection breaks before it arrives.
    Resets,
    /// Returns the token that it issued before.
    SameToken,
    /// Any of these.
    Flaky,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum What {
    Start(u64, Plan),
    Call(u64, usize, Op),
    /// After so many steps of the scheduler.
    Kill(u64, u64),
    Service(Mode),
    Latency([Nanos; 2]),
    Lifetime(i64),
    RevokeTokens,
    RotateSecret,
    Suspend(usize),
    Resume(usize),
    StepWall(usize, Nanos),
    Drift(usize, i64),
    Reboot(usize),
    DiskDamage(usize, DiskDamage),
    DiskHangs(usize, Nanos),
    DiskFails(usize, Nanos),
    DiskLatency(usize, [Nanos; 2]),
    RedisDamage(RedisDamage),
    RedisHangs(Nanos),
    RedisDown(Nanos),
    RedisLatency([Nanos; 2]),
}

const MILLISECOND: Nanos = SECOND / 1000;

/// The latency of a service that works.
pub const LATENCY: [Nanos; 2] = [20 * MILLISECOND, 150 * MILLISECOND];

/// Makes the scenario of a seed.
pub fn make(seed: u64) -> Scenario {
    let mut rng = Rng::new(seed, 0);
    let lifetime = rng.pick(&[2, 30, 60, 120, 300, 300, 300, 300, 900, 3600]);
    let end = lifetime * SECOND * rng.within(20..35) / 10;
    let machines: Vec<_> = (0..rng.pick(&[1, 1, 2, 2, 3, 5]))
        .map(|_| MachinePlan {
            wall_off: if rng.one_in(4) {
                rng.within(-3600 * SECOND..3600 * SECOND)
            } else {
                rng.within(-SECOND..SECOND)
            },
            ppm: rng.pick(&[0, 0, 20, -50, 200, -400, 500]),
            tick: rng.pick(&[1, 4, 10]) * MILLISECOND,
            oversleep: rng.pick(&[0, 0, 0, 2, 20]) * MILLISECOND,
        })
        .collect();
    let mut events = Vec::new();
    let mut make = Maker { rng: &mut rng, end, lifetime, machines: machines.len(), events: &mut events, next: 1 };
    make.processes();
    make.service();
    make.machines();
    make.stores();
    events.sort_by_key(|event| event.at);
    Scenario { seed, machines, lifetime, end, events }
}

struct Maker<'a> {
    rng: &'a mut Rng,
    end: Nanos,
    lifetime: i64,
    machines: usize,
    events: &'a mut Vec<Event>,
    /// The number of the next process.
    next: u64,
}

impl Maker<'_> {
    fn add(&mut self, at: Nanos, what: What) {
        self.events.push(Event { at, what });
    }

    fn time(&mut self) -> Nanos {
        self.rng.within(0..self.end)
    }

    fn processes(&mut self) {
        // Mostly a few, and now and then some hundreds.
        let (slots, calls) = match self.rng.within(0..200) {
            0 => (self.rng.within(150..400), 2),
            1..10 => (self.rng.within(30..90), 4),
            10..50 => (self.rng.within(8..24), 8),
            _ => (self.rng.within(1..7), self.rng.within(8..24)),
        };
        let usual = self.rng.pick(&[
            StoreKind::None,
            StoreKind::Local,
            StoreKind::Local,
            StoreKind::Network,
            StoreKind::Redis,
            StoreKind::Redis,
        ]);
        let timeout = self.rng.pick(&[30_000, 30_000, 30_000, 5_000, 10_000, 60_000]);
        // Moments at which many act at once.
        let moments: Vec<_> = (0..self.rng.within(1..6)).map(|_| self.time()).collect();
        for _ in 0..slots {
            let plan = Plan {
                machine: self.rng.within(0..self.machines as i64) as usize,
                store: if self.rng.one_in(10) { StoreKind::None } else { usual },
                own_transport: self.rng.one_in(3),
                background: self.rng.one_in(4),
                timeout_ms: timeout,
                retries: self.rng.pick(&[3, 3, 3, 0, 1]),
                min_validity_ms: if self.rng.one_in(12) { self.lifetime * 100 } else { 0 },
                secret_in_file: self.rng.one_in(3),
                no_threads: self.rng.one_in(30),
            };
            let mut from = if self.rng.one_in(2) { self.rng.within(0..self.end / 20) } else { self.rng.pick(&moments) };
            // A process that is killed or exits is started again.
            for _ in 0..self.rng.pick(&[1, 1, 1, 1, 2, 3]) {
                let until = self.life(plan, from, calls, &moments);
                from = until + self.rng.within(MILLISECOND..20 * SECOND);
                if from >= self.end {
                    break;
                }
            }
        }
    }

    /// One life of a process. Returns when it ends.
    fn life(&mut self, plan: Plan, from: Nanos, calls: i64, moments: &[Nanos]) -> Nanos {
        let process = self.next;
        self.next += 1;
        self.add(from, What::Start(process, plan));
        let until = if self.rng.one_in(3) { self.rng.within(from..self.end) } else { self.end };
        let threads = self.rng.pick(&[1, 1, 2, 4]);
        self.calls(process, from, until, calls, threads, moments);
        if self.rng.one_in(6) {
            let child = self.next;
            self.next += 1;
            let thread = self.rng.within(0..threads) as usize;
            // Half of the forks happen while another thread requests a token.
            let early = self.rng.one_in(2);
            let latest = if early { from + 300 * MILLISECOND } else { until };
            let at = self.rng.within(from..latest.max(from + 1));
            if early {
                self.add(from, What::Call(process, thread + 1, Op::Get));
                // Or soon after the service has asked for a delay.
                if self.rng.one_in(3) {
                    self.add(from, What::Service(Mode::Status(503, Some(30))));
                    self.add(from + 10 * SECOND, What::Service(Mode::Works));
                }
            }
            self.add(at, What::Call(process, thread, Op::Fork(child)));
            // The child acts at once, and later.
            let soon = at + self.rng.within(0..2 * SECOND);
            self.add(soon, What::Call(child, 0, Op::Get));
            self.calls(child, at, self.end, calls / 2, 2, moments);
            if self.rng.one_in(3) {
                let at = self.rng.within(at..self.end);
                self.add(at, What::Call(child, 0, Op::Exit));
            }
        }
        if until < self.end {
            if self.rng.one_in(2) {
                self.add(until, What::Call(process, 0, Op::Exit));
            } else {
                // In the middle of what a call does.
                let call = What::Call(process, 0, Op::Get);
                self.add(until, call);
                let (later, steps) = (self.rng.within(0..200 * MILLISECOND), self.rng.within(0..12) as u64);
                self.add(until + later, What::Kill(process, steps));
            }
        }
        until
    }

    fn calls(&mut self, process: u64, from: Nanos, until: Nanos, count: i64, threads: i64, moments: &[Nanos]) {
        for _ in 0..count {
            let at = match self.rng.within(0..4) {
                0 => self.rng.pick(moments),
                _ => self.rng.within(from..until.max(from + 1)),
            };
            if at < from || at >= until {
                continue;
            }
            let op = match self.rng.within(0..24) {
                0 => Op::GetFor(self.rng.within(0..self.lifetime * 900)),
                1 => Op::TryGet,
                2..6 => Op::Use,
                6 => Op::Invalidate,
                7 if self.rng.one_in(3) => Op::UseWithoutPermission,
                8..10 => Op::Insist(20 * SECOND),
                _ => Op::Get,
            };
            // Several threads at once, at times.
            let together = if self.rng.one_in(4) { threads } else { 1 };
            for index in 0..together {
                let thread = if together > 1 { index } else { self.rng.within(0..threads) };
                self.add(at, What::Call(process, thread as usize, op));
            }
        }
    }

    fn service(&mut self) {
        let latency = self.rng.pick(&[LATENCY, LATENCY, LATENCY, [0, MILLISECOND], [SECOND, 3 * SECOND]]);
        self.add(0, What::Latency(latency));
        if self.rng.one_in(4) {
            return;
        }
        for _ in 0..self.rng.within(0..5) {
            let at = self.time();
            let mode = self.mode();
            let longest = self.rng.pick(&[2, 20, 60, 200, 400]) * SECOND;
            let takes = self.rng.within(SECOND / 10..longest);
            self.add(at, What::Service(mode));
            self.add(at + takes, What::Service(Mode::Works));
        }
        for _ in 0..self.rng.pick(&[0, 0, 1, 2]) {
            let at = self.time();
            let slow = self.rng.pick(&[[SECOND, 5 * SECOND], [3 * SECOND, 40 * SECOND], [0, 500 * MILLISECOND]]);
            self.add(at, What::Latency(slow));
            let later = at + self.rng.within(SECOND..60 * SECOND);
            self.add(later, What::Latency(LATENCY));
        }
        if self.rng.one_in(4) {
            let (at, lifetime) = (self.time(), self.rng.pick(&[2, 20, 60, 300, 1000]));
            self.add(at, What::Lifetime(lifetime));
        }
        for _ in 0..self.rng.pick(&[0, 0, 0, 1, 2]) {
            let at = self.time();
            self.add(at, What::RevokeTokens);
        }
        if self.rng.one_in(10) {
            let at = self.time();
            self.add(at, What::RotateSecret);
        }
    }

    fn mode(&mut self) -> Mode {
        let after = match self.rng.within(0..3) {
            0 => None,
            _ => Some(self.rng.within(1..100)),
        };
        match self.rng.within(0..11) {
            0 => Mode::Refuses,
            1 => Mode::Unresolved,
            2 | 3 => Mode::Silent,
            4 | 5 => Mode::Status(503, after),
            6 => Mode::Status(429, after.or(Some(7))),
            7 => Mode::Status(500, None),
            8 => self.rng.pick(&[Mode::Garbage, Mode::Resets]),
            9 => Mode::SameToken,
            _ => Mode::Flaky,
        }
    }

    fn machines(&mut self) {
        for machine in 0..self.machines {
            // A clock that is set back, and a machine that is suspended for as long before the token expires: both
            // clocks of the library then stand where they stood. So no machine has both.
            let sleeps = self.rng.one_in(2);
            for _ in 0..self.rng.pick(&[0, 0, 1, 2]) {
                let at = self.time();
                if sleeps {
                    let longest = self.rng.pick(&[5, 100, 4000]) * SECOND;
                    let takes = self.rng.within(SECOND / 10..longest);
                    self.add(at, What::Suspend(machine));
                    self.add(at + takes, What::Resume(machine));
                } else if self.rng.one_in(3) {
                    let ppm = self.rng.within(-500..500);
                    self.add(at, What::Drift(machine, ppm));
                } else {
                    let step = self.rng.pick(&[2, 100, 3600, 100_000]) * SECOND;
                    let by = self.rng.within(-step..step);
                    self.add(at, What::StepWall(machine, by));
                }
            }
            if sleeps && self.rng.one_in(8) {
                let at = self.time();
                self.add(at, What::Reboot(machine));
            }
        }
    }

    fn stores(&mut self) {
        if self.rng.one_in(2) {
            return;
        }
        for _ in 0..self.rng.within(1..6) {
            let at = self.time();
            let disk = self.rng.within(0..self.machines as i64 + 1) as usize;
            let longest = self.rng.pick(&[1, 10, 100]) * SECOND;
            let takes = self.rng.within(SECOND / 10..longest);
            let slow = self.rng.pick(&[[0, 100 * MILLISECOND], [0, 600 * MILLISECOND], [SECOND, 4 * SECOND]]);
            let what = match self.rng.within(0..16) {
                0 => What::DiskDamage(disk, DiskDamage::CorruptEntry),
                1 => What::DiskDamage(disk, DiskDamage::CorruptNote),
                2 => What::DiskDamage(disk, DiskDamage::LoseEntry),
                3 => What::DiskDamage(disk, DiskDamage::LoseNote),
                4 => What::DiskDamage(disk, DiskDamage::RestoreEntry),
                5 => What::DiskDamage(disk, DiskDamage::SwapEntryAndNote),
                6 | 7 => What::DiskHangs(disk, takes),
                8 => What::DiskFails(disk, takes),
                9 => What::DiskLatency(disk, slow),
                10 => What::RedisDamage(self.rng.pick(&[RedisDamage::Flush, RedisDamage::Corrupt])),
                11 => {
                    let later = at + takes;
                    self.add(later, What::RedisDamage(RedisDamage::FailOver));
                    What::RedisDamage(RedisDamage::Copy)
                }
                12 | 13 => What::RedisHangs(takes),
                14 => What::RedisDown(takes),
                _ => What::RedisLatency(slow),
            };
            self.add(at, what);
        }
    }
}
