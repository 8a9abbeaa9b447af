//! Simulated machines, processes, threads and clocks, which the library runs on under `cfg(simulator)`.
//!
//! A thread is a coroutine, and one thread of the system runs all of a simulation. A coroutine runs until it waits: for
//! a lock, a condition variable, a point in time. Then the scheduler resumes another one, in an order that the seed
//! decides. World time passes only when all of them wait. So a simulation is a function of its seed.
//!
//! The state is in a thread-local variable, which is never borrowed while a coroutine is suspended or resumed.

use crate::net::transport::{Request, Response};
use crate::sys::clock::Timestamps;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Nanoseconds: of world time since the start of the simulation, or of a machine's clock.
pub type Nanos = i64;

/// One second.
pub const SECOND: Nanos = 1_000_000_000;

/// A duration in nanoseconds; the longest that fits if it is longer.
pub fn nanos(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// A pseudo-random generator: SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator for one purpose of one simulation.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ purpose.wrapping_mul(0x2545_f491_4f6c_dd1d));
        rng.next();
        rng
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `range`.
    pub fn within(&mut self, range: std::ops::Range<i64>) -> i64 {
        let width = range.end.saturating_sub(range.start).max(1) as u64;
        range.start + (self.next() % width) as i64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: i64) -> bool {
        self.within(0..n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.within(0..of.len() as i64) as usize]
    }
}

/// A machine: its clocks run at their own speed, and stop while it is suspended.
#[derive(Debug)]
pub struct Machine {
    /// Differs between any two boots.
    pub boot: u64,
    /// The clocks at `since`.
    mono: Nanos,
    wall: Nanos,
    boot_time: Nanos,
    since: Nanos,
    /// How much faster than world time the clocks run.
    ppm: i64,
    pub suspended: bool,
    /// `CLOCK_MONOTONIC_COARSE` and `CLOCK_REALTIME_COARSE` change once in this time.
    pub tick: Nanos,
    /// The longest time by which a sleep is longer than asked for, because the machine is busy.
    pub oversleep: Nanos,
    sleepers: BTreeSet<(Nanos, TaskId)>,
    rng: Rng,
}

impl Machine {
    fn passed(&self, now: Nanos) -> Nanos {
        let passed = i128::from(now - self.since) * i128::from(1_000_000 + self.ppm) / 1_000_000;
        passed as Nanos
    }

    fn monotonic(&self, now: Nanos) -> Nanos {
        if self.suspended { self.mono } else { self.mono + self.passed(now) }
    }

    fn wall(&self, now: Nanos) -> Nanos {
        self.wall + self.passed(now)
    }

    fn boot_time(&self, now: Nanos) -> Nanos {
        self.boot_time + self.passed(now)
    }

    /// The world time at which the monotonic clock will have reached `mono`; `None` while it stands still.
    fn when(&self, mono: Nanos) -> Option<Nanos> {
        if self.suspended {
            return None;
        }
        let speed = i128::from(1_000_000 + self.ppm);
        let left = (i128::from(mono - self.mono).max(0) * 1_000_000 + speed - 1) / speed;
        Some(self.since.saturating_add(Nanos::try_from(left).unwrap_or(i64::MAX / 4)))
    }

    fn rebase(&mut self, now: Nanos) {
        (self.mono, self.wall, self.boot_time) = (self.monotonic(now), self.wall(now), self.boot_time(now));
        self.since = now;
    }
}

pub type MachineId = usize;
pub type ProcessId = u64;
pub type TaskId = usize;

/// Identifies a simulated thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadId(TaskId);

#[derive(Clone, Debug)]
struct Process {
    machine: MachineId,
    alive: bool,
    /// Whether no thread can be started in it.
    no_threads: bool,
}

enum Wait {
    Runnable,
    Parked,
    Done,
}

struct Task {
    coroutine: Option<Coroutine<(), (), (), DefaultStack>>,
    yielder: Cell<*const Yielder<(), ()>>,
    process: ProcessId,
    machine: MachineId,
    name: String,
    wait: Wait,
    /// The time at which it is to be woken, if it waits for one.
    wake: Option<Nanos>,
    /// Whether it may be in the library, where a killed thread must not run destructors.
    in_library: bool,
    joiners: Vec<TaskId>,
}

/// What the library asks the world for.
pub trait World {
    /// Sends a token request from the current process.
    fn send(&self, request: &Request, timeout: Duration) -> crate::error::Result<Response>;
    /// The content of a file of the current machine; `None` if it is not simulated.
    fn file(&self, path: &Path) -> Option<Vec<u8>>;
}

/// A fault that is planted in the environment of the library or in what calls it, to show that it is found.
pub type Plant = Option<&'static str>;

struct Sim {
    now: Nanos,
    rng: Rng,
    tasks: Vec<Task>,
    runnable: Vec<TaskId>,
    current: Option<TaskId>,
    machines: Vec<Machine>,
    processes: BTreeMap<ProcessId, Process>,
    stacks: Vec<DefaultStack>,
    steps: u64,
    trace: Option<Vec<String>>,
    violations: Vec<String>,
    plant: Plant,
}

thread_local! {
    static SIM: RefCell<Option<Sim>> = const { RefCell::new(None) };
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
    /// Stacks are used again by the next simulation.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
    /// Whether a coroutine is being unwound: then nothing may wait.
    static ENDING: Cell<bool> = const { Cell::new(false) };
}

fn with<R>(work: impl FnOnce(&mut Sim) -> R) -> R {
    SIM.with_borrow_mut(|sim| work(sim.as_mut().expect("no simulation is running")))
}

/// Begins a simulation on this thread of the system.
pub fn begin(seed: u64, trace: bool, plant: Plant) {
    let stacks = STACKS.take();
    SIM.set(Some(Sim {
        now: 0,
        rng: Rng::new(seed, 1),
        tasks: Vec::new(),
        runnable: Vec::new(),
        current: None,
        machines: Vec::new(),
        processes: BTreeMap::new(),
        stacks,
        steps: 0,
        trace: trace.then(Vec::new),
        violations: Vec::new(),
        plant,
    }));
}

/// What is left of a simulation.
pub struct Remains {
    pub trace: Vec<String>,
    pub violations: Vec<String>,
    pub steps: u64,
    pub now: Nanos,
}

/// Ends the simulation of this thread of the system.
pub fn end() -> Remains {
    let tasks: Vec<TaskId> = with(|sim| (0..sim.tasks.len()).collect());
    for task in tasks {
        discard(task);
    }
    WORLD.set(None);
    let sim = SIM.take().expect("no simulation is running");
    STACKS.set(sim.stacks);
    Remains { trace: sim.trace.unwrap_or_default(), violations: sim.violations, steps: sim.steps, now: sim.now }
}

/// Sets what the library asks.
pub fn set_world(world: Rc<dyn World>) {
    WORLD.set(Some(world));
}

/// What the library asks.
pub fn world() -> Rc<dyn World> {
    WORLD.with_borrow(|world| world.clone().expect("there is no world"))
}

/// Whether this fault is planted.
pub fn planted(name: &str) -> bool {
    SIM.with_borrow(|sim| sim.as_ref().is_some_and(|sim| sim.plant == Some(name)))
}

/// Adds a line to the trace.
pub fn trace(line: impl FnOnce() -> String) {
    if with(|sim| sim.trace.is_none()) {
        return;
    }
    let line = line();
    with(|sim| {
        let at = sim.now;
        let who = sim.current.map_or("world", |task| sim.tasks[task].name.as_str());
        let line = format!("{:>5}.{:09} {who:<10} {line}", at / SECOND, at % SECOND);
        sim.trace.get_or_insert_default().push(line);
    });
}

/// Reports that a promise is broken.
pub fn violation(what: impl Into<String>) {
    let what = what.into();
    trace(|| format!("VIOLATION: {what}"));
    with(|sim| {
        let at = sim.now as f64 / SECOND as f64;
        let who = sim.current.map_or("world", |task| sim.tasks[task].name.as_str());
        let what = format!("{what} [{who} at {at:.3} s]");
        sim.violations.push(what);
    });
}

/// How many promises were broken up to now.
pub fn violations() -> usize {
    with(|sim| sim.violations.len())
}

/// The world time.
pub fn now() -> Nanos {
    with(|sim| sim.now)
}

/// Adds a machine whose wall clock is `wall_off` ahead of the true time.
pub fn add_machine(seed: u64, wall_off: Nanos, ppm: i64, tick: Nanos, oversleep: Nanos) -> MachineId {
    with(|sim| {
        let id = sim.machines.len();
        let mut rng = Rng::new(seed, 1000 + id as u64);
        sim.machines.push(Machine {
            boot: (id as u64 + 1) << 32,
            mono: rng.within(SECOND..1_000_000 * SECOND),
            wall: EPOCH + wall_off,
            boot_time: rng.within(1_000_000 * SECOND..2_000_000 * SECOND),
            since: sim.now,
            ppm,
            suspended: false,
            tick,
            oversleep,
            sleepers: BTreeSet::new(),
            rng,
        });
        id
    })
}

/// The true time at the start of the simulation, in nanoseconds since 1970.
pub const EPOCH: Nanos = 1_700_000_000 * SECOND;

/// Changes a machine.
pub fn change_machine(id: MachineId, change: impl FnOnce(&mut Machine)) {
    with(|sim| {
        let now = sim.now;
        let machine = &mut sim.machines[id];
        machine.rebase(now);
        change(machine);
    });
}

impl Machine {
    /// Moves the wall clock.
    pub fn step_wall(&mut self, by: Nanos) {
        self.wall += by;
    }

    /// Changes the speed of the clocks.
    pub fn set_drift(&mut self, ppm: i64) {
        self.ppm = ppm;
    }

    /// Boots it again. Its processes must have been killed.
    pub fn reboot(&mut self) {
        self.boot += 1;
        self.mono = self.rng.within(SECOND..100 * SECOND);
        self.boot_time = self.mono;
    }
}

/// Adds a process.
pub fn add_process(id: ProcessId, machine: MachineId, no_threads: bool) {
    with(|sim| sim.processes.insert(id, Process { machine, alive: true, no_threads }));
}

/// Whether the process exists and was not killed.
pub fn is_alive(id: ProcessId) -> bool {
    with(|sim| sim.processes.get(&id).is_some_and(|process| process.alive))
}

/// The current process.
pub fn process() -> ProcessId {
    with(|sim| sim.current.map_or(0, |task| sim.tasks[task].process))
}

/// The machine of the current process.
pub fn machine() -> MachineId {
    with(|sim| sim.current.map_or(0, |task| sim.tasks[task].machine))
}

/// The machine that a process runs on.
pub fn machine_of(id: ProcessId) -> MachineId {
    with(|sim| sim.processes[&id].machine)
}

/// The exact clock of a machine.
pub fn monotonic_of(id: MachineId) -> Nanos {
    with(|sim| sim.machines[id].monotonic(sim.now))
}

/// Whether the monotonic clock of a machine stands still.
pub fn is_suspended(id: MachineId) -> bool {
    with(|sim| sim.machines[id].suspended)
}

/// How inexact the times of a machine are.
pub fn tolerance_of(id: MachineId) -> Nanos {
    with(|sim| sim.machines[id].tick + 3 * sim.machines[id].oversleep + SECOND / 1000)
}

/// Kills a process: its threads do nothing any more, not even run destructors.
pub fn kill(id: ProcessId) {
    let tasks: Vec<_> = with(|sim| {
        if let Some(process) = sim.processes.get_mut(&id) {
            process.alive = false;
        }
        (0..sim.tasks.len()).filter(|task| sim.tasks[*task].process == id).collect()
    });
    for task in tasks {
        discard(task);
    }
    crate::store::simulated::process_end(id);
}

/// Ends a thread wherever it is.
fn discard(task: TaskId) {
    let (coroutine, in_library) = with(|sim| {
        unschedule(sim, task);
        let task = &mut sim.tasks[task];
        task.wait = Wait::Done;
        (task.coroutine.take(), task.in_library)
    });
    let Some(mut coroutine) = coroutine else { return };
    if !coroutine.done() {
        if in_library {
            // SAFETY: nothing borrows from the stack: what other coroutines share with this one is counted or static. The
            // objects on it are leaked, as those of a process that is killed.
            unsafe { coroutine.force_reset() };
        } else {
            ENDING.set(true);
            coroutine.force_unwind();
            ENDING.set(false);
        }
    }
    with(|sim| sim.stacks.push(coroutine.into_stack()));
}

fn unschedule(sim: &mut Sim, task: TaskId) {
    sim.runnable.retain(|runnable| *runnable != task);
    if let Some(wake) = sim.tasks[task].wake.take() {
        let machine = sim.tasks[task].machine;
        sim.machines[machine].sleepers.remove(&(wake, task));
    }
}

/// The size of a stack. The cryptography needs most of it.
const STACK: usize = 256 * 1024;

/// Starts a thread of a process.
pub fn spawn(process: ProcessId, name: String, in_library: bool, work: impl FnOnce() + 'static) -> TaskId {
    with(|sim| {
        let id = sim.tasks.len();
        let stack = sim.stacks.pop().unwrap_or_else(|| DefaultStack::new(STACK).expect("no memory for a stack"));
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            with(|sim| sim.tasks[id].yielder.set(yielder));
            work();
        });
        let machine = sim.processes[&process].machine;
        sim.tasks.push(Task {
            coroutine: Some(coroutine),
            yielder: Cell::new(std::ptr::null()),
            process,
            machine,
            name,
            wait: Wait::Runnable,
            wake: None,
            in_library,
            joiners: Vec::new(),
        });
        sim.runnable.push(id);
        id
    })
}

/// Until the returned value is dropped, the current thread is in the library.
pub fn enter_library() -> impl Drop {
    struct Inside(TaskId, bool);
    impl Drop for Inside {
        fn drop(&mut self) {
            with(|sim| sim.tasks[self.0].in_library = self.1);
        }
    }
    with(|sim| {
        let task = sim.current.expect("no thread is running");
        Inside(task, std::mem::replace(&mut sim.tasks[task].in_library, true))
    })
}

/// The current thread.
pub fn current() -> TaskId {
    with(|sim| sim.current.expect("no thread is running"))
}

/// The current thread, as the cache names it.
pub fn current_thread() -> ThreadId {
    ThreadId(current())
}

/// Waits to be [woken](unpark), or until the clock of the machine has reached `until`.
pub fn park(until: Option<Nanos>) {
    if ENDING.get() {
        return;
    }
    let yielder = with(|sim| {
        let id = sim.current.expect("no thread is running");
        let machine = &mut sim.machines[sim.tasks[id].machine];
        let until = until.map(|until| match machine.oversleep {
            0 => until,
            most => until.saturating_add(machine.rng.within(0..most)),
        });
        if let Some(until) = until {
            machine.sleepers.insert((until, id));
        }
        let task = &mut sim.tasks[id];
        (task.wait, task.wake) = (Wait::Parked, until);
        task.yielder.get()
    });
    // SAFETY: the coroutine that is running has set the pointer to its own yielder, which exists as long as it runs.
    unsafe { &*yielder }.suspend(());
}

/// Wakes a thread, if it waits.
pub fn unpark(task: TaskId) {
    with(|sim| {
        if matches!(sim.tasks[task].wait, Wait::Parked) {
            unschedule(sim, task);
            sim.tasks[task].wait = Wait::Runnable;
            sim.runnable.push(task);
        }
    });
}

/// A point at which other threads may run, once in a while.
pub fn preempt() {
    if ENDING.get() {
        return;
    }
    let yielder = with(|sim| {
        let id = sim.current?;
        if sim.runnable.is_empty() || !sim.rng.one_in(3) {
            return None;
        }
        sim.tasks[id].wait = Wait::Runnable;
        sim.runnable.push(id);
        Some(sim.tasks[id].yielder.get())
    });
    if let Some(yielder) = yielder {
        // SAFETY: as in `park`.
        unsafe { &*yielder }.suspend(());
    }
}

/// Sleeps, by the clock of the machine.
pub fn sleep(duration: Duration) {
    let until = monotonic_of(machine()).saturating_add(nanos(duration));
    while !ENDING.get() && monotonic_of(machine()) < until {
        park(Some(until));
    }
}

/// Runs threads until all wait, or for at most `most` steps.
pub fn run_ready(most: u64) {
    for _ in 0..most {
        let next = with(|sim| {
            if sim.runnable.is_empty() {
                return None;
            }
            sim.steps += 1;
            let index = sim.rng.within(0..sim.runnable.len() as i64) as usize;
            let id = sim.runnable.swap_remove(index);
            sim.current = Some(id);
            let coroutine = sim.tasks[id].coroutine.take().expect("a thread that ended is scheduled");
            Some((id, coroutine))
        });
        let Some((id, mut coroutine)) = next else { return };
        let result = catch_unwind(AssertUnwindSafe(|| coroutine.resume(())));
        let ended = !matches!(result, Ok(CoroutineResult::Yield(())));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned();
            violation(format!("a thread panicked: {text}"));
        }
        let joiners = with(|sim| {
            sim.current = None;
            let task = &mut sim.tasks[id];
            if !ended {
                task.coroutine = Some(coroutine);
                return Vec::new();
            }
            task.wait = Wait::Done;
            sim.stacks.push(coroutine.into_stack());
            std::mem::take(&mut sim.tasks[id].joiners)
        });
        joiners.into_iter().for_each(unpark);
    }
}

/// Runs until world time has reached `until`, and all threads wait. Stops early when a promise is broken.
pub fn run_until(until: Nanos) {
    loop {
        run_ready(u64::MAX);
        if violations() > 0 {
            return;
        }
        let woken = with(|sim| {
            let wakes = sim.machines.iter().filter_map(|machine| machine.when(machine.sleepers.first()?.0));
            let Some(at) = wakes.min().filter(|at| *at <= until) else {
                sim.now = sim.now.max(until);
                return Vec::new();
            };
            sim.now = sim.now.max(at);
            let now = sim.now;
            let due = |machine: &Machine| {
                let mono = machine.monotonic(now);
                machine.sleepers.iter().take_while(|(wake, _)| *wake <= mono).map(|(_, task)| *task).collect::<Vec<_>>()
            };
            sim.machines.iter().flat_map(due).collect::<Vec<_>>()
        });
        if woken.is_empty() && now() >= until {
            return;
        }
        woken.into_iter().for_each(unpark);
    }
}

/// Whether all threads of a process have ended.
pub fn has_ended(process: ProcessId) -> bool {
    with(|sim| sim.tasks.iter().all(|task| task.process != process || matches!(task.wait, Wait::Done)))
}

/// The clock of the machine that the current process runs on.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock;

impl MachineClock {
    /// Both clocks, which lag by up to a tick.
    pub fn now(self) -> Timestamps {
        with(|sim| {
            let machine = &sim.machines[sim.current.map_or(0, |task| sim.tasks[task].machine)];
            let coarse = |time: Nanos| time - time.rem_euclid(machine.tick);
            let (monotonic, wall) = (machine.monotonic(sim.now), machine.wall(sim.now));
            let mut read = Timestamps { monotonic: coarse(monotonic), wall: coarse(wall) };
            match sim.plant {
                Some("monotonic-clock-only") => read.wall = EPOCH + read.monotonic,
                Some("wall-clock-only") => read.monotonic = read.wall - EPOCH + 1_000_000 * SECOND,
                _ => {}
            }
            read
        })
    }

    /// `CLOCK_BOOTTIME`.
    pub fn boot_time(self) -> i64 {
        with(|sim| {
            let machine = &sim.machines[sim.current.map_or(0, |task| sim.tasks[task].machine)];
            machine.boot_time(sim.now)
        })
    }

    /// A random number of this machine.
    pub fn random(self) -> u64 {
        with(|sim| {
            let machine = sim.current.map_or(0, |task| sim.tasks[task].machine);
            sim.machines[machine].rng.next()
        })
    }
}

/// The identity of the boot of the current machine.
pub fn boot_identity() -> [u8; 16] {
    let boot = with(|sim| sim.machines[sim.current.map_or(0, |task| sim.tasks[task].machine)].boot);
    let boot = if planted("one-boot-for-all") { 1 } else { boot };
    let mut identity = [0x5a; 16];
    identity[..8].copy_from_slice(&boot.to_be_bytes());
    identity
}

/// The monotonic clock, as `std::time::Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Nanos);

impl Instant {
    /// Now, by the clock of the current machine.
    pub fn now() -> Self {
        Instant(monotonic_of(machine()))
    }

    /// The time since then.
    pub fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(*self)
    }

    /// The time from `earlier` to this.
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        Duration::from_nanos(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, later: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(later)))
    }
}

/// A handle of a thread, as `std::thread::JoinHandle<()>`.
pub struct JoinHandle<T>(TaskId, PhantomData<T>);

impl JoinHandle<()> {
    /// Waits for the thread to end.
    pub fn join(self) -> std::thread::Result<()> {
        loop {
            let me = current();
            let done = with(|sim| {
                let task = &mut sim.tasks[self.0];
                let done = matches!(task.wait, Wait::Done);
                if !done {
                    task.joiners.push(me);
                }
                done
            });
            if done || ENDING.get() {
                return Ok(());
            }
            park(None);
        }
    }
}

/// Starts a thread of the library in the current process.
pub fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let id = process();
    if ENDING.get() || with(|sim| sim.processes.get(&id).is_none_or(|process| process.no_threads)) {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    }
    Ok(JoinHandle(spawn(id, format!("p{id}/{name}"), true, work), PhantomData))
}

pub use locks::{Condvar, Mutex, MutexGuard, mpsc};

mod locks {
    use super::{ENDING, current, machine, monotonic_of, nanos, park, planted, preempt, unpark};
    use std::sync::{LockResult, PoisonError, TryLockError};
    use std::time::Duration;

    /// A lock for which simulated threads wait.
    #[derive(Default)]
    pub struct Mutex<T> {
        waiting: std::sync::Mutex<Vec<usize>>,
        content: std::sync::Mutex<T>,
    }

    /// The lock, while it is held.
    pub struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        content: Option<std::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        /// A lock that is free.
        pub fn new(content: T) -> Self {
            Mutex { waiting: std::sync::Mutex::default(), content: std::sync::Mutex::new(content) }
        }

        /// Waits for the lock.
        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            preempt();
            loop {
                if let Some(guard) = self.try_lock() {
                    return Ok(guard);
                }
                assert!(!ENDING.get(), "a thread that is unwound waits for a lock");
                self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(current());
                park(None);
            }
        }

        /// The lock, if it is free.
        pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            let content = match self.content.try_lock() {
                Ok(content) => content,
                Err(TryLockError::Poisoned(content)) => content.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            Some(MutexGuard { mutex: self, content: Some(content) })
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.content = None;
            let waiting = std::mem::take(&mut *self.mutex.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(unpark);
        }
    }

    impl<T> std::ops::Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.content.as_ref().expect("the guard is in use")
        }
    }

    impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.content.as_mut().expect("the guard is in use")
        }
    }

    /// A condition variable for which simulated threads wait.
    #[derive(Default)]
    pub struct Condvar(std::sync::Mutex<Vec<usize>>);

    impl Condvar {
        /// Nobody waits for it.
        pub fn new() -> Self {
            Condvar::default()
        }

        /// Waits for a notification.
        pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
            self.wait_until(guard, None)
        }

        /// Waits for a notification, or for `timeout`. The second value is of no use.
        pub fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            let timeout = if planted("late-timeout") { timeout * 3 / 2 } else { timeout };
            let until = monotonic_of(machine()).saturating_add(nanos(timeout));
            Ok((self.wait_until(guard, Some(until)).unwrap_or_else(PoisonError::into_inner), ()))
        }

        fn wait_until<'a, T>(&self, guard: MutexGuard<'a, T>, until: Option<i64>) -> LockResult<MutexGuard<'a, T>> {
            let (mutex, me) = (guard.mutex, current());
            let waiting = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting().push(me);
            drop(guard);
            park(until);
            waiting().retain(|task| *task != me);
            mutex.lock()
        }

        /// Wakes all that wait.
        pub fn notify_all(&self) {
            let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(unpark);
        }
    }

    /// Channels, as in `std::sync::mpsc`.
    pub mod mpsc {
        pub use std::sync::mpsc::{RecvTimeoutError, SendError};

        use super::super::{current, machine, monotonic_of, nanos, park, unpark};
        use std::collections::VecDeque;
        use std::sync::{Arc, Mutex, PoisonError};
        use std::time::Duration;

        struct Channel<T> {
            items: VecDeque<T>,
            is_open: bool,
            receiver: Option<usize>,
        }

        /// The end that sends.
        pub struct SyncSender<T>(Arc<Mutex<Channel<T>>>);

        /// The end that receives.
        pub struct Receiver<T>(Arc<Mutex<Channel<T>>>);

        /// A channel. Sending never waits.
        pub fn sync_channel<T>(_: usize) -> (SyncSender<T>, Receiver<T>) {
            let channel = Arc::new(Mutex::new(Channel { items: VecDeque::new(), is_open: true, receiver: None }));
            (SyncSender(channel.clone()), Receiver(channel))
        }

        impl<T> SyncSender<T> {
            fn change(&self, change: impl FnOnce(&mut Channel<T>)) {
                let receiver = {
                    let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    change(&mut channel);
                    channel.receiver.take()
                };
                receiver.into_iter().for_each(unpark);
            }

            /// Sends one item.
            pub fn send(&self, item: T) -> Result<(), SendError<T>> {
                self.change(|channel| channel.items.push_back(item));
                Ok(())
            }
        }

        impl<T> Drop for SyncSender<T> {
            fn drop(&mut self) {
                self.change(|channel| channel.is_open = false);
            }
        }

        impl<T> Receiver<T> {
            /// Waits for an item for at most `timeout`.
            pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
                let until = monotonic_of(machine()).saturating_add(nanos(timeout));
                loop {
                    {
                        let mut channel = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(item) = channel.items.pop_front() {
                            return Ok(item);
                        }
                        if !channel.is_open {
                            return Err(RecvTimeoutError::Disconnected);
                        }
                        channel.receiver = Some(current());
                    }
                    if monotonic_of(machine()) >= until {
                        return Err(RecvTimeoutError::Timeout);
                    }
                    park(Some(until));
                }
            }
        }
    }
}

/// Waits as an I/O operation that takes `takes`, of which the caller has `limit`. Whether it was finished in time.
pub fn operation(takes: Duration, limit: Duration) -> bool {
    if ENDING.get() {
        return false;
    }
    sleep(takes.min(limit));
    takes < limit
}

/// Whether a thread is being unwound.
pub fn is_ending() -> bool {
    ENDING.get()
}

/// A reference that simulated threads share.
pub type Shared<T> = Arc<std::sync::Mutex<T>>;
