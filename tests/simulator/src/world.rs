//! The world of one simulation: the service, the API, and the processes with their threads.

use crate::checks::{Call, Checks, Group, Issued, seconds};
use crate::faults;
use crate::scenario::{LATENCY, Mode, Op, Plan, Scenario, StoreKind, What};
use amp_token_simulated::config::Config;
use amp_token_simulated::error::{Error, Kind, Result};
use amp_token_simulated::net::transport::{Request, Response};
use amp_token_simulated::store::simulated as stores;
use amp_token_simulated::sys::clock::Clock;
use amp_token_simulated::sys::simulation::{
    self, MachineClock, Nanos, Remains, Rng, SECOND, TaskId, nanos, trace, violation,
};
use amp_token_simulated::token::Token;
use amp_token_simulated::token::cache::TokenCache;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a simulation showed.
pub struct Outcome {
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    pub steps: u64,
    pub requests: u64,
    pub calls: u64,
    pub processes: u64,
    pub virtual_seconds: f64,
}

struct Service {
    mode: Mode,
    latency: [Nanos; 2],
    lifetime: i64,
    /// The version of the client secret that is valid.
    secret: u64,
    rotated: Nanos,
    issued: u64,
    rng: Rng,
}

struct Thread {
    work: VecDeque<Op>,
    task: TaskId,
}

struct Process {
    plan: Plan,
    /// The version of the secret that it was started with.
    secret: u64,
    cache: RefCell<Option<Rc<TokenCache>>>,
    threads: RefCell<BTreeMap<usize, Thread>>,
    exiting: Cell<bool>,
    /// The token that a call returned last.
    last: RefCell<Option<Arc<Token>>>,
    /// The threads that reported a token, and have not got another one yet.
    rejecters: RefCell<BTreeMap<TaskId, String>>,
    /// For the planted fault that lets callers wait for each other.
    turn: simulation::Mutex<()>,
}

pub struct World {
    scenario: Scenario,
    service: RefCell<Service>,
    checks: RefCell<Checks>,
    processes: RefCell<BTreeMap<u64, Rc<Process>>>,
    started: Cell<u64>,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, with_trace: bool, plant: simulation::Plant) -> Outcome {
    let seed = scenario.seed;
    simulation::begin(seed, with_trace, plant);
    for plan in &scenario.machines {
        simulation::add_machine(seed, plan.wall_off, plan.ppm, plan.tick, plan.oversleep);
    }
    stores::make_disks(seed, scenario.machines.len() + 1);
    stores::make_server(seed);
    let mut rng = Rng::new(seed, 4000);
    let off = rng.within(-5 * SECOND..5 * SECOND);
    stores::with_disk(scenario.machines.len(), |disk| disk.server_clock = Some(off));
    let off = rng.within(-100 * SECOND..100 * SECOND);
    stores::with_server(|server| server.clock_off = off);
    let world = Rc::new(World {
        service: RefCell::new(Service {
            mode: Mode::Works,
            latency: LATENCY,
            lifetime: scenario.lifetime,
            secret: 1,
            rotated: Nanos::MIN,
            issued: 0,
            rng: Rng::new(seed, 5000),
        }),
        checks: RefCell::new(Checks::new(scenario.machines.len())),
        processes: RefCell::default(),
        started: Cell::new(0),
        scenario: scenario.clone(),
    });
    simulation::set_world(world.clone());
    world.play();
    let checks = world.checks.borrow();
    let (requests, calls) = (checks.requests(), checks.calls);
    drop(checks);
    let processes = world.started.get();
    // Only after a violation: caches are not freed outside of a simulation.
    for process in std::mem::take(&mut *world.processes.borrow_mut()).into_values() {
        std::mem::forget(process.cache.borrow_mut().take());
    }
    let Remains { trace, violations, steps, now } = simulation::end();
    Outcome { violations, trace, steps, requests, calls, processes, virtual_seconds: seconds(now) }
}

/// Only the last call of each process may take longer than this.
const FINAL_CALL: Nanos = 100 * SECOND;

/// The longest `Retry-After` of a scenario, in seconds.
const LONGEST_RETRY_AFTER: i64 = 100;

impl World {
    fn play(self: &Rc<Self>) {
        for event in &self.scenario.events {
            simulation::run_until(event.at.min(self.scenario.end));
            if simulation::violations() > 0 {
                return;
            }
            if event.at < self.scenario.end {
                self.apply(&event.what);
            }
        }
        simulation::run_until(self.scenario.end);
        self.heal();
        // The longest pause, the longest call before and after it, and what is left of a second.
        let left = (60 + LONGEST_RETRY_AFTER + 2 * 60 + 30) * SECOND;
        let processes: Vec<u64> = self.processes.borrow().keys().copied().collect();
        for process in &processes {
            self.call(*process, 0, Op::Insist(left));
        }
        simulation::run_until(simulation::now() + left);
        if simulation::violations() > 0 {
            return;
        }
        for process in &processes {
            self.call(*process, 0, Op::Exit);
        }
        simulation::run_until(simulation::now() + 200 * SECOND);
        for process in processes {
            if simulation::violations() == 0 && !simulation::has_ended(process) {
                violation(format!("process {process} does not end after its last cache was freed"));
            }
        }
    }

    /// Everything works from now on.
    fn heal(&self) {
        trace(|| "everything works from now on".to_owned());
        let was_suspended = Cell::new(false);
        for machine in 0..self.scenario.machines.len() {
            let was = |machine: &mut simulation::Machine| was_suspended.set(std::mem::take(&mut machine.suspended));
            simulation::change_machine(machine, was);
            if was_suspended.get() {
                self.checks.borrow_mut().disturb_machine(machine, self.scenario.machines.len());
            }
        }
        let disk =
            |disk: &mut stores::Disk| (disk.hangs_until, disk.fails_until, disk.latency) = (0, 0, [10_000, 200_000]);
        (0..=self.scenario.machines.len()).for_each(|index| stores::with_disk(index, disk));
        stores::with_server(|server| {
            (server.hangs_until, server.down_until, server.latency) = (0, 0, [200_000, 2_000_000]);
        });
        let mut service = self.service.borrow_mut();
        (service.mode, service.latency) = (Mode::Works, LATENCY);
        service.lifetime = service.lifetime.max(20);
        drop(service);
        if self.checks.borrow().service_works_since > simulation::now() {
            self.service_changed();
        }
    }

    fn apply(self: &Rc<Self>, what: &What) {
        let now = simulation::now();
        let shared = self.scenario.machines.len();
        let disk_disturbed = |disk: usize, until: Nanos| {
            let kind = if disk == shared { StoreKind::Network } else { StoreKind::Local };
            self.checks.borrow_mut().disturb(kind, disk, until);
        };
        let redis_disturbed = |until: Nanos| self.checks.borrow_mut().disturb(StoreKind::Redis, 0, until);
        match what {
            What::Call(..) | What::Start(..) => {}
            _ => trace(|| format!("{what:?}")),
        }
        match *what {
            What::Start(process, plan) => self.start(process, plan),
            What::Call(process, thread, op) => self.call(process, thread, op),
            What::Kill(process, steps) => {
                simulation::run_ready(steps);
                self.kill(process);
            }
            What::Service(mode) => {
                self.service.borrow_mut().mode = mode;
                self.service_changed();
            }
            What::Latency(latency) => {
                self.service.borrow_mut().latency = latency;
                self.service_changed();
            }
            What::Lifetime(seconds) => {
                self.service.borrow_mut().lifetime = seconds;
                self.service_changed();
            }
            What::RevokeTokens => self.checks.borrow_mut().tokens.values_mut().for_each(|token| token.revoked = true),
            What::RotateSecret => {
                let mut service = self.service.borrow_mut();
                service.secret += 1;
                service.rotated = now;
                drop(service);
                self.service_changed();
            }
            What::Suspend(machine) => {
                simulation::change_machine(machine, |machine| machine.suspended = true);
                self.checks.borrow_mut().disturb_machine(machine, shared);
            }
            What::Resume(machine) => {
                simulation::change_machine(machine, |machine| machine.suspended = false);
                self.checks.borrow_mut().disturb_machine(machine, shared);
            }
            What::StepWall(machine, by) => {
                simulation::change_machine(machine, |machine| machine.step_wall(by));
                self.checks.borrow_mut().disturb_machine(machine, shared);
            }
            What::Drift(machine, ppm) => simulation::change_machine(machine, |machine| machine.set_drift(ppm)),
            What::Reboot(machine) => {
                let processes: Vec<_> =
                    self.processes.borrow().iter().map(|(id, process)| (*id, process.plan.machine)).collect();
                for (process, _) in processes.into_iter().filter(|(_, on)| *on == machine) {
                    self.kill(process);
                }
                simulation::change_machine(machine, |machine| machine.reboot());
                self.checks.borrow_mut().disturb_machine(machine, shared);
            }
            What::DiskDamage(disk, damage) => {
                stores::with_disk(disk, |disk| disk.damage(damage));
                let kind = if disk == shared { StoreKind::Network } else { StoreKind::Local };
                self.checks.borrow_mut().damaged(kind, disk);
            }
            What::DiskHangs(disk, takes) => {
                stores::with_disk(disk, |disk| disk.hangs_until = now + takes);
                disk_disturbed(disk, now + takes);
            }
            What::DiskFails(disk, takes) => {
                stores::with_disk(disk, |disk| disk.fails_until = now + takes);
                disk_disturbed(disk, now + takes);
            }
            What::DiskLatency(disk, latency) => {
                stores::with_disk(disk, |disk| disk.latency = latency);
                disk_disturbed(disk, i64::MAX / 2);
            }
            What::RedisDamage(damage) => {
                stores::with_server(|server| server.damage(damage));
                self.checks.borrow_mut().damaged(StoreKind::Redis, 0);
            }
            What::RedisHangs(takes) => {
                stores::with_server(|server| server.hangs_until = now + takes);
                redis_disturbed(now + takes);
            }
            What::RedisDown(takes) => {
                stores::with_server(|server| server.down_until = now + takes);
                redis_disturbed(now + takes);
            }
            What::RedisLatency(latency) => {
                stores::with_server(|server| server.latency = latency);
                redis_disturbed(i64::MAX / 2);
            }
        }
    }

    /// Whether the service works now, and soon enough for the lifetime of its tokens.
    fn service_changed(&self) {
        let service = self.service.borrow();
        let soon = service.latency[1] <= SECOND && service.latency[1] * 5 <= service.lifetime * SECOND;
        let works = service.mode == Mode::Works && soon;
        self.checks.borrow_mut().service_works_since = if works { simulation::now() } else { i64::MAX / 2 };
    }

    fn group(&self, process: &Process) -> Option<Group> {
        let plan = process.plan;
        let place = match plan.store {
            StoreKind::None => return None,
            StoreKind::Local => plan.machine,
            StoreKind::Network => self.scenario.machines.len(),
            StoreKind::Redis => 0,
        };
        Some((plan.store, place, self.secret_of(process)))
    }

    /// The version of the secret that a process reads in its file. The file is replaced some time after the rotation.
    fn secret_in_file(&self, machine: usize) -> u64 {
        let service = self.service.borrow();
        let replaced = service.rotated.saturating_add(5 * SECOND * (machine as Nanos + 1));
        if service.secret > 1 && simulation::now() < replaced { service.secret - 1 } else { service.secret }
    }

    fn secret_of(&self, process: &Process) -> u64 {
        if process.plan.secret_in_file { self.secret_in_file(process.plan.machine) } else { process.secret }
    }

    fn secret_is_valid(&self, process: &Process) -> bool {
        self.secret_of(process) == self.service.borrow().secret
    }

    fn start(self: &Rc<Self>, id: u64, plan: Plan) {
        trace(|| format!("process {id} starts on machine {}: {plan:?}", plan.machine));
        let process = self.add_process(id, plan, self.service.borrow().secret, None);
        let world = self.clone();
        let create = move || {
            let made = world.config(id, &process).and_then(|config| TokenCache::new(&config));
            match made {
                Ok(cache) => *process.cache.borrow_mut() = Some(Rc::new(cache)),
                Err(error) => violation(format!("failure: a cache cannot be created: {error}")),
            }
        };
        simulation::spawn(id, format!("p{id}"), true, create);
    }

    fn add_process(&self, id: u64, plan: Plan, secret: u64, cache: Option<TokenCache>) -> Rc<Process> {
        self.started.set(self.started.get() + 1);
        simulation::add_process(id, plan.machine, plan.no_threads);
        let process = Rc::new(Process {
            plan,
            secret,
            cache: RefCell::new(cache.map(Rc::new)),
            threads: RefCell::default(),
            exiting: Cell::new(false),
            last: RefCell::default(),
            rejecters: RefCell::default(),
            turn: simulation::Mutex::default(),
        });
        self.processes.borrow_mut().insert(id, process.clone());
        process
    }

    fn config(self: &Rc<Self>, id: u64, process: &Process) -> Result<Config> {
        let plan = process.plan;
        let mut config = Config::new();
        config.clock = Clock::Simulated(MachineClock);
        config.environment = Default::default();
        let text = |number: i64| number.to_string();
        config.set("auth_url", Some("https://auth.example"))?;
        config.set("client_id", Some("11111111-2222-3333-4444-555555555555"))?;
        if plan.secret_in_file {
            config.set("client_secret_file", Some("/secret"))?;
        } else {
            config.set("client_secret", Some(&secret(process.secret)))?;
        }
        config.set("timeout_ms", Some(&text(plan.timeout_ms)))?;
        config.set("retries", Some(&text(plan.retries)))?;
        config.set("min_validity_ms", Some(&text(plan.min_validity_ms)))?;
        config.set("background_refresh", Some(&plan.background.to_string()))?;
        match plan.store {
            StoreKind::None => {}
            StoreKind::Redis => config.set("store", Some("redis://cache"))?,
            StoreKind::Local | StoreKind::Network => {
                config.set("store", Some("file"))?;
                let disk = self.group(process).map_or(0, |group| group.1);
                config.set("store_dir", Some(&format!("/{disk}")))?;
            }
        }
        if plan.own_transport {
            let _ = id;
            config.transport =
                Some(Arc::new(|request: &Request, timeout: Duration| simulation::world().send(request, timeout)));
        }
        Ok(config)
    }

    fn kill(&self, id: u64) {
        let Some(process) = self.processes.borrow_mut().remove(&id) else { return };
        trace(|| format!("process {id} is killed"));
        simulation::kill(id);
        // Its memory is gone, and nothing in it runs any more.
        std::mem::forget(process.cache.borrow_mut().take());
        self.checks.borrow_mut().gone(id, self.group(&process));
    }

    /// Gives a thread of a process something to do.
    fn call(self: &Rc<Self>, id: u64, thread: usize, op: Op) {
        let Some(process) = self.processes.borrow().get(&id).cloned() else { return };
        if process.exiting.get() {
            return;
        }
        let mut threads = process.threads.borrow_mut();
        if let Some(thread) = threads.get_mut(&thread) {
            thread.work.push_back(op);
            return simulation::unpark(thread.task);
        }
        let (world, this) = (self.clone(), process.clone());
        let name = format!("p{id}/{thread}");
        let task = simulation::spawn(id, name, false, move || world.work(id, &this, thread));
        threads.insert(thread, Thread { work: VecDeque::from([op]), task });
    }

    /// The body of a thread of a process.
    fn work(self: &Rc<Self>, id: u64, process: &Rc<Process>, thread: usize) {
        loop {
            let next = process.threads.borrow_mut().get_mut(&thread).and_then(|thread| thread.work.pop_front());
            let Some(op) = next else {
                if process.exiting.get() || simulation::is_ending() {
                    break;
                }
                simulation::park(None);
                continue;
            };
            if let Op::Exit = op {
                process.exiting.set(true);
                for other in process.threads.borrow().values() {
                    simulation::unpark(other.task);
                }
                continue;
            }
            let cache = process.cache.borrow().clone();
            if let Some(cache) = cache {
                let caller = Caller { world: self, id, process, cache: &cache };
                caller.act(op);
            }
        }
        if simulation::is_ending() {
            return;
        }
        // The last thread of a process frees its cache.
        let is_last = {
            let mut threads = process.threads.borrow_mut();
            threads.remove(&thread);
            threads.is_empty()
        };
        if is_last {
            let start = self.start_of_call(process);
            let cache = process.cache.borrow_mut().take();
            let inside = simulation::enter_library();
            drop(cache);
            drop(inside);
            let took = self.start_of_call(process) - start;
            trace(|| format!("the cache is freed ({:.3} s)", seconds(took)));
            if took > simulation::tolerance_of(process.plan.machine) {
                violation(format!("deadline: freeing a cache took {:.3} s", seconds(took)));
            }
            self.processes.borrow_mut().remove(&id);
            stores::process_end(id);
        }
    }

    fn start_of_call(&self, process: &Process) -> Nanos {
        simulation::monotonic_of(process.plan.machine)
    }
}

const SECRET: &str = "00112233445566778899aabbccddeeff-";

fn secret(version: u64) -> String {
    format!("{SECRET}{version}")
}

struct Caller<'a> {
    world: &'a Rc<World>,
    id: u64,
    process: &'a Rc<Process>,
    cache: &'a Rc<TokenCache>,
}

impl Caller<'_> {
    fn act(&self, op: Op) {
        match op {
            Op::Get => drop(self.get()),
            Op::GetFor(validity) => {
                let validity = Duration::from_millis(validity.unsigned_abs());
                self.world.checks.borrow_mut().demand(self.id, 1);
                drop(self.checked("get_for", nanos(validity), |cache| cache.get_for(validity)));
                self.world.checks.borrow_mut().demand(self.id, -1);
            }
            Op::TryGet => drop(self.checked("try_get", 0, |cache| cache.try_get())),
            Op::Use => self.use_token(false),
            Op::UseWithoutPermission => self.use_token(true),
            Op::Invalidate => {
                if let Ok(token) = self.get() {
                    self.world.checks.borrow_mut().rejected(self.id, token.value());
                    let thread = (simulation::current(), token.value().to_owned());
                    self.process.rejecters.borrow_mut().insert(thread.0, thread.1);
                    let inside = simulation::enter_library();
                    self.cache.invalidate(&token);
                    drop(inside);
                    trace(|| format!("invalidate {}", token.value()));
                    drop(self.checked("get after a rejection", 0, |cache| cache.get()));
                }
            }
            Op::Insist(limit) => self.insist(limit),
            Op::Fork(child) => self.fork(child),
            Op::Exit => {}
        }
    }

    fn get(&self) -> Result<Arc<Token>> {
        self.checked("get", 0, |cache| {
            if simulation::planted(faults::CALLERS_IN_TURN) {
                let _turn = self.process.turn.lock();
                return cache.get();
            }
            if simulation::planted(faults::FIXED_WINDOW) {
                return cache.get_for(Duration::from_secs(60)).or_else(|_| cache.get());
            }
            if simulation::planted(faults::CACHE_FOR_EACH_CALL) && cache.peek().is_none() {
                let own = self.world.config(self.id, self.process).and_then(|config| TokenCache::new(&config))?;
                return own.get();
            }
            cache.get()
        })
    }

    /// Makes a call, and checks what it returns.
    fn checked(
        &self,
        what: &'static str,
        min_validity: Nanos,
        work: impl FnOnce(&TokenCache) -> Result<Arc<Token>>,
    ) -> Result<Arc<Token>> {
        let plan = self.process.plan;
        let min_validity = min_validity.max(plan.min_validity_ms * 1_000_000);
        let has_token = || {
            let validity = Duration::from_nanos(min_validity.unsigned_abs());
            self.cache.peek().is_some_and(|token| token.is_usable(MachineClock.now(), validity))
        };
        let start_token = self.cache.peek().filter(|_| has_token());
        let still_usable = || {
            let validity = Duration::from_nanos(min_validity.unsigned_abs());
            start_token.as_ref().is_some_and(|token| token.is_usable(MachineClock.now(), validity))
        };
        let was_taken = |last: &Arc<Token>| last.is_usable(MachineClock.now(), Duration::ZERO);
        if self.cache.peek().is_none() && self.process.last.borrow().as_ref().is_some_and(was_taken) {
            violation("rejection: a valid token was taken from all callers");
        }
        let me = simulation::current();
        let rejecter = self.process.rejecters.borrow().contains_key(&me);
        let (started, clock) = (simulation::now(), self.world.start_of_call(self.process));
        let inside = simulation::enter_library();
        let result = work(self.cache);
        drop(inside);
        if result.is_err() && simulation::planted(faults::NO_PAUSE) {
            self.cache.discard_pauses();
        }
        let took = self.world.start_of_call(self.process) - clock;
        trace(|| match &result {
            Ok(token) => format!("{what}: {} ({:.3} s)", token.value(), seconds(took)),
            Err(error) => format!("{what}: {error} ({:.3} s)", seconds(took)),
        });
        let call = Call {
            what,
            process: self.id,
            started,
            took,
            limit: if what == "try_get" { 0 } else { plan.timeout_ms * 1_000_000 },
            had_token: still_usable(),
            rejecter,
            result: match &result {
                Ok(token) => Ok(token.value().to_owned()),
                Err(error) => Err(error.to_string()),
            },
            min_validity,
        };
        if let Ok(token) = &result {
            *self.process.last.borrow_mut() = Some(token.clone());
            let is_other = |rejected: &String| rejected != token.value();
            if self.process.rejecters.borrow().get(&me).is_some_and(is_other) {
                self.process.rejecters.borrow_mut().remove(&me);
            }
        }
        let (group, secret) = (self.world.group(self.process), self.world.secret_is_valid(self.process));
        self.world.checks.borrow_mut().returned(&call, &plan, group, secret);
        result
    }

    /// Sends a request to the API, and reports the response.
    fn use_token(&self, without_permission: bool) {
        let Ok(token) = self.get() else { return };
        let latency = self.world.service.borrow_mut().rng.within(0..SECOND / 5);
        simulation::sleep(Duration::from_nanos(latency.unsigned_abs()));
        let rejected = {
            let checks = self.world.checks.borrow();
            let issued = checks.tokens.get(token.value());
            without_permission
                || issued.is_none_or(|issued| issued.revoked || simulation::now() >= issued.at + issued.lifetime)
        };
        trace(|| format!("the API {} {}", if rejected { "rejects" } else { "accepts" }, token.value()));
        if !rejected {
            return;
        }
        self.world.checks.borrow_mut().rejected(self.id, token.value());
        if simulation::planted(faults::REJECTION_FOR_ALL) {
            self.cache.discard_token();
        }
        let clock = self.world.start_of_call(self.process);
        let inside = simulation::enter_library();
        let again = self.cache.report(&token, 401, b"");
        drop(inside);
        let took = self.world.start_of_call(self.process) - clock;
        trace(|| format!("report {}: {again} ({:.3} s)", token.value(), seconds(took)));
        let limit = self.process.plan.timeout_ms * 1_000_000 + simulation::tolerance_of(self.process.plan.machine);
        if took > limit {
            violation(format!("deadline: report took {:.3} s", seconds(took)));
        }
        if again {
            let another = self.checked("get", 0, |cache| cache.get());
            if another.is_ok_and(|another| another.value() == token.value()) {
                violation(format!(
                    "rejection: {} was returned again after report said there is another",
                    token.value()
                ));
            }
        }
    }

    /// Asks until there is a token.
    fn insist(&self, limit: Nanos) {
        let until = simulation::now() + limit;
        loop {
            let error = match self.get() {
                Ok(_) => return,
                Err(error) => error,
            };
            if error.kind() == Kind::CredentialsRejected && !self.world.secret_is_valid(self.process) {
                return;
            }
            let left = until - simulation::now();
            if left <= 0 {
                let is_end = limit > FINAL_CALL;
                // With a longer validity than the service gives, there is no token.
                if is_end && self.process.plan.min_validity_ms == 0 {
                    violation(format!("recovery: a process has no token although everything works: {error}"));
                }
                return;
            }
            let pause = error.retry_after().map_or(SECOND, nanos).clamp(SECOND / 10, 5 * SECOND);
            simulation::sleep(Duration::from_nanos(pause.min(left).unsigned_abs()));
        }
    }

    fn fork(&self, child: u64) {
        trace(|| format!("forks process {child}"));
        let copy = self.cache.forked(child);
        let world = self.world;
        world.add_process(child, self.process.plan, self.process.secret, Some(copy));
        stores::process_fork(self.id, child);
        let mut checks = world.checks.borrow_mut();
        checks.forked(self.id, child, self.cache.peek().map(|token| token.value().to_owned()));
        // The lock is shared with the child; if its holder is killed, the child keeps it.
        if let Some((store, place, _)) = world.group(self.process) {
            checks.disturb(store, place, simulation::now());
        }
    }
}

impl simulation::World for World {
    fn file(&self, path: &Path) -> Option<Vec<u8>> {
        (path == Path::new("/secret")).then(|| secret(self.secret_in_file(simulation::machine())).into_bytes())
    }

    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        if simulation::is_ending() {
            return Err(Error::new(Kind::Connect, "the process ends"));
        }
        let id = simulation::process();
        let Some(process) = self.processes.borrow().get(&id).cloned() else {
            return Err(Error::new(Kind::Internal, "there is no such process"));
        };
        let plan = process.plan;
        // A process may still use a secret that its file does not hold any more.
        let group = self.group(&process).map(|(store, place, _)| (store, place, secret_in(request)));
        let cached = process.cache.borrow().as_ref().and_then(|cache| cache.peek());
        let cached = cached.map(|token| token.value().to_owned());
        trace(|| format!("request, at most {:.3} s", timeout.as_secs_f64()));
        let number = self.checks.borrow_mut().request(id, &plan, group, cached.as_deref());
        let result = self.exchange(request, timeout);
        trace(|| match &result {
            Ok(response) if response.status == 200 => {
                format!("response: {}", String::from_utf8_lossy(&response.body))
            }
            Ok(response) => format!("response: {} {:?}", response.status, response.header("retry-after")),
            Err(error) => format!("no response: {error}"),
        });
        let token = result.as_ref().ok().and_then(|response| token_in(&response.body));
        let outcome = match &result {
            Ok(response) if response.status == 200 => match &token {
                Some(token) if Some(token) != cached.as_ref() => Ok(token.as_str()),
                _ => Err((None, false)),
            },
            Ok(response) => {
                let asked = response.header("retry-after").and_then(|text| text.parse::<i64>().ok());
                let is_defined = matches!(response.status, 429 | 503);
                let asked = asked.map(|asked| asked.min(if is_defined { 86_400 } else { 60 }) * SECOND);
                Err((asked, is_defined))
            }
            Err(_) => Err((None, false)),
        };
        self.checks.borrow_mut().response(id, number, &plan, group, outcome);
        let mut result = result;
        if let Ok(response) = &mut result
            && simulation::planted(faults::NO_RETRY_AFTER)
        {
            response.headers.clear();
        }
        result
    }
}

impl World {
    /// One exchange with the service.
    fn exchange(&self, request: &Request, timeout: Duration) -> Result<Response> {
        let (mode, takes) = {
            let mut service = self.service.borrow_mut();
            let [least, most] = service.latency;
            let takes = service.rng.within(least..most.max(least + 1));
            let mut mode = service.mode;
            if mode == Mode::Flaky {
                let after = service.rng.within(1..30);
                mode = service.rng.pick(&[
                    Mode::Works,
                    Mode::Works,
                    Mode::Refuses,
                    Mode::Silent,
                    Mode::Status(500, None),
                    Mode::Status(503, Some(after)),
                    Mode::Status(503, None),
                    Mode::Garbage,
                    Mode::Resets,
                ]);
            }
            (mode, takes)
        };
        let asked = simulation::now();
        let limit = if simulation::planted(faults::NO_TIME_LIMIT) { Duration::from_secs(90) } else { timeout };
        let duration = |nanos: Nanos| Duration::from_nanos(nanos.unsigned_abs());
        let timed_out = || Err(Error::new(Kind::Timeout, "no response"));
        let wait = |takes: Nanos| simulation::operation(duration(takes), limit);
        match mode {
            Mode::Refuses => {
                wait(SECOND / 1000);
                return Err(Error::new(Kind::Connect, "connection refused"));
            }
            Mode::Unresolved => {
                wait(SECOND / 100);
                return Err(Error::new(Kind::Resolve, "no such host"));
            }
            Mode::Silent => {
                simulation::sleep(limit);
                return timed_out();
            }
            _ => {}
        }
        let there = takes / 2;
        if !wait(there) {
            return timed_out();
        }
        let response = self.respond(request, mode, asked);
        if duration(takes) >= limit {
            simulation::sleep(limit - duration(there));
            return timed_out();
        }
        simulation::sleep(duration(takes - there));
        if mode == Mode::Resets {
            return Err(Error::new(Kind::Connect, "the connection was reset"));
        }
        Ok(response)
    }

    /// What the service answers now.
    fn respond(&self, request: &Request, mode: Mode, asked: Nanos) -> Response {
        let response = |status: u16, headers: Vec<(String, String)>, body: String| Response {
            status,
            headers,
            body: body.into_bytes().into(),
        };
        let mut service = self.service.borrow_mut();
        match mode {
            Mode::Status(status, after) => {
                let headers = after.map(|after| ("Retry-After".to_owned(), after.to_string()));
                return response(status, headers.into_iter().collect(), String::new());
            }
            Mode::Garbage => return response(200, Vec::new(), "<html>Welcome</html>".to_owned()),
            _ => {}
        }
        if secret_in(request) != service.secret {
            return response(400, Vec::new(), r#"{"error":"invalid_client"}"#.to_owned());
        }
        let mut checks = self.checks.borrow_mut();
        let now = simulation::now();
        let last = format!("t{}", service.issued);
        let reusable = checks.tokens.get(&last).cloned();
        let (name, left) = match reusable {
            Some(issued) if mode == Mode::SameToken && issued.at + issued.lifetime > now + SECOND => {
                if let Some(issued) = checks.tokens.get_mut(&last) {
                    issued.again = true;
                }
                (last, (issued.at + issued.lifetime - now) / SECOND)
            }
            _ => {
                service.issued += 1;
                let name = format!("t{}", service.issued);
                let issued =
                    Issued { at: now, asked, lifetime: service.lifetime * SECOND, revoked: false, again: false };
                checks.tokens.insert(name.clone(), issued);
                (name, service.lifetime)
            }
        };
        let says = if simulation::planted(faults::LIFETIME_TOO_LONG) { left + left / 4 + 1 } else { left };
        response(200, Vec::new(), format!(r#"{{"access_token":"{name}","session_expires_in":0,"expires_in":{says}}}"#))
    }
}

/// The version of the secret in a request.
fn secret_in(request: &Request) -> u64 {
    let form = String::from_utf8_lossy(&request.body);
    let rest = form.split_once(SECRET).map_or("", |(_, rest)| rest);
    rest.split('&').next().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn token_in(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let rest = text.split_once(r#""access_token":""#)?.1;
    Some(rest.split_once('"')?.0.to_owned())
}
