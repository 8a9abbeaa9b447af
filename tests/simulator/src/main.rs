//! Runs the cache of libamp_token in simulated machines. docs/simulator.md says what is simulated and checked.

mod checks;
mod faults;
mod scenario;
mod shrink;
mod world;

use amp_token_simulated::sys::simulation::Plant;
use lexopt::prelude::{Long, ValueExt};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const USAGE: &str = "\
usage: simulator [--seed N | --seeds A..B] [--trace] [--plant FAULT] [--all-plants] [--shrink] [--threads N]

  --seed N        runs one simulation
  --seeds A..B    runs those from A to before B (default: 0..1000)
  --trace         prints what happens
  --plant FAULT   plants a fault; --list-plants shows them
  --all-plants    plants each fault, and counts the seeds until it is found
  --no-shrink     does not look for a shorter scenario that fails in the same way
  --threads N     simulations at a time (default: one for each processor)";

struct Arguments {
    seeds: std::ops::Range<u64>,
    trace: bool,
    plant: Plant,
    all_plants: bool,
    shrink: bool,
    threads: usize,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulator: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic in a simulated thread is reported as a violation.
    std::panic::set_hook(Box::new(|info| {
        if let Some(place) = info.location() {
            eprintln!("simulator: a panic at {place}");
        }
    }));
    if arguments.all_plants {
        return all_plants(&arguments);
    }
    let failed = if arguments.seeds.end - arguments.seeds.start == 1 { one(&arguments) } else { many(&arguments) };
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments =
        Arguments { seeds: 0..1000, trace: false, plant: None, all_plants: false, shrink: true, threads: processors };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => {
                let seed: u64 = parser.value()?.parse()?;
                arguments.seeds = seed..seed.saturating_add(1);
            }
            Long("seeds") => {
                let text = parser.value()?.string()?;
                let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
                let (from, to) = text.split_once("..").ok_or("--seeds takes A..B")?;
                arguments.seeds = parse(from)?..parse(to)?;
            }
            Long("trace") => arguments.trace = true,
            Long("plant") => {
                let name = parser.value()?.string()?;
                let fault = faults::FAULTS.iter().find(|fault| fault.name == name);
                arguments.plant = Some(fault.ok_or_else(|| format!("there is no fault {name:?}"))?.name);
            }
            Long("all-plants") => arguments.all_plants = true,
            Long("list-plants") => {
                for fault in faults::FAULTS {
                    println!("{:<22} {}: {}", fault.name, fault.promise, fault.what);
                }
                return Ok(None);
            }
            Long("no-shrink") => arguments.shrink = false,
            Long("threads") => arguments.threads = parser.value()?.parse::<usize>()?.max(1),
            Long("help") => {
                println!("{USAGE}");
                return Ok(None);
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

/// Runs one simulation. Returns whether a promise was broken.
fn one(arguments: &Arguments) -> bool {
    let scenario = scenario::make(arguments.seeds.start);
    let outcome = world::run(&scenario, arguments.trace, arguments.plant);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {}: {} processes, {} calls, {} requests, {} steps, {:.0} s of virtual time",
        scenario.seed, outcome.processes, outcome.calls, outcome.requests, outcome.steps, outcome.virtual_seconds
    );
    if outcome.violations.is_empty() {
        return false;
    }
    report(&scenario, &outcome, arguments);
    true
}

fn report(scenario: &scenario::Scenario, outcome: &world::Outcome, arguments: &Arguments) {
    println!("seed {} FAILED: {}\nmachines: {:?}", scenario.seed, outcome.violations[0], scenario.machines);
    if !arguments.shrink {
        return;
    }
    let (small, outcome, runs) = shrink::shrink(scenario, outcome, arguments.plant);
    println!("shrunk from {} events to {} in {runs} runs:", scenario.events.len(), small.events.len());
    outcome.trace.iter().for_each(|line| println!("  {line}"));
}

/// Runs many simulations. Returns whether a promise was broken in one.
fn many(arguments: &Arguments) -> bool {
    let start = Instant::now();
    let next = AtomicU64::new(arguments.seeds.start);
    let totals = Mutex::new([0_u64; 5]);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        return;
                    }
                    let scenario = scenario::make(seed);
                    let outcome = world::run(&scenario, false, arguments.plant);
                    let figures = [
                        outcome.processes,
                        outcome.calls,
                        outcome.requests,
                        outcome.steps,
                        outcome.virtual_seconds as u64,
                    ];
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.iter_mut().zip(figures).for_each(|(total, figure)| *total += figure);
                    drop(totals);
                    if let Some(violation) = outcome.violations.first() {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push((seed, violation.clone()));
                    }
                }
            });
        }
    });
    let [processes, calls, requests, steps, seconds] = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.sort();
    println!(
        "{} seeds in {:.1} s: {processes} processes, {calls} calls, {requests} requests, {steps} steps, {} days of virtual time; {} failed",
        arguments.seeds.end - arguments.seeds.start,
        start.elapsed().as_secs_f64(),
        seconds / 86_400,
        failed.len()
    );
    for (seed, violation) in failed.iter().take(20) {
        println!("seed {seed}: {violation}");
    }
    if let Some((seed, _)) = failed.first() {
        let scenario = scenario::make(*seed);
        let outcome = world::run(&scenario, false, arguments.plant);
        report(&scenario, &outcome, arguments);
    }
    !failed.is_empty()
}

/// Plants each fault, and counts the seeds until it is found.
fn all_plants(arguments: &Arguments) -> ExitCode {
    let mut all_found = true;
    for fault in faults::FAULTS {
        let found = arguments.seeds.clone().find_map(|seed| {
            let scenario = scenario::make(seed);
            let outcome = world::run(&scenario, false, Some(fault.name));
            (!outcome.violations.is_empty()).then_some((scenario, outcome))
        });
        let Some((scenario, outcome)) = found else {
            println!("{:<22} NOT FOUND in {} seeds", fault.name, arguments.seeds.end - arguments.seeds.start);
            all_found = false;
            continue;
        };
        let seeds = scenario.seed - arguments.seeds.start + 1;
        print!("{:<22} found by seed {} ({seeds} tried)", fault.name, scenario.seed);
        if arguments.shrink {
            let (small, outcome, _) = shrink::shrink(&scenario, &outcome, Some(fault.name));
            print!(", {} events shrunk to {}", scenario.events.len(), small.events.len());
            println!(": {}", outcome.violations.first().map_or("?", String::as_str));
        } else {
            println!(": {}", outcome.violations[0]);
        }
    }
    if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
