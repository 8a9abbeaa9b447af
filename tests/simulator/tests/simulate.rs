//! The simulator itself: it is deterministic, it passes, and it finds what is planted.
#![cfg(unix)]

use std::process::Command;

/// What the simulator prints, and whether no promise was broken.
fn simulator(arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_simulator")).args(arguments).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (printed, output.status.success())
}

#[test]
fn a_seed_prints_the_same_trace_each_time() {
    // Of different sizes, with and without a violation.
    for arguments in [
        &["--seed", "3", "--trace"][..],
        &["--seed", "48", "--trace"],
        &["--seed", "11", "--trace", "--plant", "no-pause"],
    ] {
        let (first, _) = simulator(arguments);
        assert!(first.lines().count() > 10, "{first}");
        assert_eq!(simulator(arguments).0, first);
    }
}

#[test]
fn no_promise_is_broken() {
    let (printed, passed) = simulator(&["--seeds", "0..500"]);
    assert!(passed, "{printed}");
}

#[test]
fn each_planted_fault_is_found() {
    let (printed, all) = simulator(&["--all-plants", "--seeds", "0..1000", "--no-shrink"]);
    assert!(all, "{printed}");
}

#[test]
fn a_failing_scenario_is_shrunk() {
    let (printed, passed) = simulator(&["--plant", "no-retry-after", "--seeds", "0..200"]);
    assert!(!passed, "{printed}");
    let line = printed.lines().find(|line| line.starts_with("shrunk from")).unwrap();
    let numbers: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[1] <= 12 && numbers[1] * 3 < numbers[0], "{line}");
}

#[test]
fn a_bad_argument_is_reported() {
    for arguments in [&["--seeds", "5"][..], &["--plant", "nothing"], &["--seed", "x"], &["--what"]] {
        let (printed, passed) = simulator(arguments);
        assert!(!passed && printed.contains("usage: simulator"), "{printed}");
    }
}
