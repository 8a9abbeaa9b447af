//! The directory of the store in the places where builds run.
//!
//! They are imitated by their environment, users and modes, as the comment of each test says. Only root can take
//! the roles of several users: for others these tests do nothing.

use crate::shared::{report_skipped, require_tool};
use crate::support::{CommandResult, TestEnv, is_root};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A user who is in the user database nowhere.
const NOBODY: u32 = 3_999_999_999;

/// Whether a shell runs this line with success.
fn succeeds(line: &str) -> bool {
    Command::new("sh").args(["-c", line]).output().is_ok_and(|output| output.status.success())
}

/// Creates a directory with this owner and mode.
fn directory(path: &Path, owner: u32, mode: u32) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Five commands of this user in an environment with these directories. They must share one token without a
/// warning, and the store must be at this path below the home of the test.
#[track_caller]
fn share(env: &TestEnv, user: u32, set: &[(&str, &str)], store: &str) {
    let run = |arguments: &[&str]| {
        let mut command = env.command();
        command.env_remove("HOME").env_remove("XDG_RUNTIME_DIR").uid(user).args(arguments);
        for (name, value) in set {
            command.env(name, value.replace("@", env.home.to_str().unwrap()));
        }
        CommandResult::of(&mut command).stdout_ok()
    };
    env.emulator.reset();
    let tokens: Vec<_> = (0..5).map(|_| run(&["get"])).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    // None, where an earlier case has stored one in the same place.
    assert!(env.emulator.stats().token_requests <= 1, "{set:?}");
    let status: Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    assert_eq!(status["store"], env.home.join(store).to_str().unwrap(), "{set:?}");
}

/// `su` without `-` keeps XDG_RUNTIME_DIR, and a container may have one that belongs to root: both are imitated by
/// a directory of root and of a third user, and by a runtime directory that does not exist.
#[test]
fn a_runtime_directory_of_another_user_gives_way_to_the_home() {
    if !is_root() {
        return;
    }
    let env = TestEnv::new();
    fs::set_permissions(&env.home, Permissions::from_mode(0o755)).unwrap();
    directory(&env.home.join("root"), 0, 0o700);
    directory(&env.home.join("open"), 1001, 0o777);
    directory(&env.home.join("own"), NOBODY, 0o700);
    directory(&env.home.join("closed"), NOBODY, 0o500);
    directory(&env.home.join("home"), NOBODY, 0o700);
    for runtime in ["@/root", "@/open", "@/missing", "@/closed", "@/root/below"] {
        let set = [("XDG_RUNTIME_DIR", runtime), ("HOME", "@/home")];
        share(&env, NOBODY, &set, "home/.cache/amp-token");
    }
    for cache in ["@/root", "@/closed", "@/root/below", "/dev/null"] {
        let set = [("XDG_CACHE_HOME", cache), ("HOME", "@/home")];
        share(&env, NOBODY, &set, "home/.cache/amp-token");
    }
    share(&env, NOBODY, &[("XDG_RUNTIME_DIR", "@/own"), ("HOME", "@/home")], "own/amp-token");
}

/// A service of systemd with `RuntimeDirectory=a b` or `CacheDirectory=`, and with `DynamicUser=` no home: imitated
/// by the variables that systemd.exec(5) describes, and by directories with its default mode 0755.
#[test]
fn a_service_of_systemd_uses_its_own_directories() {
    if !is_root() {
        return;
    }
    let env = TestEnv::new();
    fs::set_permissions(&env.home, Permissions::from_mode(0o755)).unwrap();
    directory(&env.home.join("run"), NOBODY, 0o755);
    directory(&env.home.join("cache"), NOBODY, 0o755);
    share(&env, NOBODY, &[("RUNTIME_DIRECTORY", "@/run:@/cache"), ("HOME", "/")], "run/amp-token");
    share(&env, NOBODY, &[("RUNTIME_DIRECTORY", "/dev/null:@/cache"), ("HOME", "/")], "cache/amp-token");
    share(&env, NOBODY, &[("CACHE_DIRECTORY", "@/cache")], "cache/amp-token");
    // Those of another service do not count.
    directory(&env.home.join("others"), 0, 0o755);
    share(&env, NOBODY, &[("RUNTIME_DIRECTORY", "@/others"), ("CACHE_DIRECTORY", "@/cache")], "cache/amp-token");
}

/// A job of GitHub in a container runs as root with HOME=/github/home, which belongs to user 1001. The user database
/// of the container is imitated by a file in a mount namespace.
#[test]
fn a_container_job_of_github_uses_the_home_of_the_user_database() {
    if !is_root() || !succeeds("unshare -m true") {
        return;
    }
    let env = TestEnv::new();
    fs::set_permissions(&env.home, Permissions::from_mode(0o755)).unwrap();
    let home = env.home.to_str().unwrap();
    directory(&env.home.join("github"), 1001, 0o755);
    directory(&env.home.join("root"), 0, 0o700);
    fs::write(env.home.join("passwd"), format!("root:x:0:0:root:{home}/root:/bin/sh\n")).unwrap();
    let job = |command: &str| {
        let mount = format!("mount --bind {home}/passwd /etc/passwd && HOME={home}/github {command}");
        let mut job = env.shell(&format!("exec unshare -m sh -c '{mount}'"));
        CommandResult::of(job.env_remove("XDG_RUNTIME_DIR"))
    };
    let first = job("amp-token get").stdout_ok();
    assert_eq!(job("amp-token get").stdout_ok(), first);
    assert!(job("amp-token status").stdout_ok().contains(&format!("{home}/root/.cache/amp-token")));
    assert!(!env.home.join("github/.cache").exists());
    // Without a usable home the reason is told.
    fs::write(env.home.join("passwd"), "root:x:0:0:root:/dev/null:/bin/sh\n").unwrap();
    let output = job("amp-token get");
    let says = format!(
        "there is no directory for it: HOME ({home}/github) belongs to another user, the user's home directory \
         (/dev/null) is not a directory; set store_dir"
    );
    assert!(output.status == Some(0) && output.stderr.contains(&says), "{}", output.stderr);
}

/// A volume of Kubernetes or Docker: an `emptyDir` is root's with mode 0777, a mounted volume root's with 0755, and
/// `fsGroup` gives it to a group with mode 2770.
#[test]
fn a_mounted_volume_needs_a_directory_below_it() {
    if !is_root() {
        return;
    }
    let env = TestEnv::new();
    fs::set_permissions(&env.home, Permissions::from_mode(0o755)).unwrap();
    let volume = env.home.join("volume");
    for (owner, mode, user) in [(0, 0o777, NOBODY), (0, 0o755, 0), (NOBODY, 0o2770, NOBODY)] {
        directory(&volume, owner, mode);
        let mut command = env.command();
        command.uid(user).args(["get", "--store-dir", volume.to_str().unwrap()]);
        let output = CommandResult::of(&mut command);
        let says = "set store_dir to a directory in it that does not exist yet";
        assert!(output.status == Some(0) && output.stderr.contains(says), "{}", output.stderr);
        share(&env, user, &[("AMPLIENCE_STORE_DIR", "@/volume/amp-token")], "volume/amp-token");
        fs::remove_dir_all(volume.join("amp-token")).unwrap();
    }
}

/// A secret of Kubernetes is a link to a link in a tmpfs of root that is mounted read-only, with mode 0644. As root
/// in a container, and as another user.
#[test]
fn a_mounted_secret_causes_no_warning() {
    if !is_root() || !succeeds("unshare -m true") {
        return;
    }
    let env = TestEnv::new();
    fs::set_permissions(&env.home, Permissions::from_mode(0o755)).unwrap();
    let mount = "mkdir m && mount -t tmpfs -o mode=1777 x m && mkdir m/..data && printf %s \"$S\" >m/..data/secret && \
                 chmod 644 m/..data/secret && ln -s ..data/secret m/secret && mount -o remount,ro m";
    for user in ["", "setpriv --reuid 65534 --clear-groups "] {
        let get = format!("{user}amp-token get --store none --client-secret-file $PWD/m/secret");
        let mut shell = env.shell(&format!(
            "cd \"$HOME\" && exec unshare -m sh -c '{mount} && {get}; s=$?; umount m; rmdir m; exit $s'"
        ));
        shell.env("S", crate::support::SECRET).env_remove("AMPLIENCE_CLIENT_SECRET");
        CommandResult::of(&mut shell).stdout_ok();
    }
}

/// A file server that does not respond, imitated by a file system that is frozen: a thread that writes to it cannot
/// be ended, and neither can its process. A watchdog thaws it, or a failure would never end.
#[test]
fn a_disk_that_does_not_respond_keeps_no_caller_waiting() {
    if !is_root() || !succeeds("unshare -m true && command -v mkfs.ext4 fsfreeze losetup && losetup -f") {
        return;
    }
    let env = TestEnv::new();
    let script =
        "cd \"$HOME\"; truncate -s 64M image; mkfs.ext4 -q image; mkdir disk; mount -o loop image disk || exit 99
        mkdir -m 700 disk/store
        export AMPLIENCE_STORE_DIR=$HOME/disk/full; amp-token get >stored; amp-token get >again
        fsfreeze -f disk
        (sleep 40 && touch thawed && fsfreeze -u disk) >/dev/null 2>&1 & watchdog=$!
        export AMPLIENCE_TIMEOUT_MS=800
        amp-token get | cmp - stored; echo \"stored $?\"
        export AMPLIENCE_STORE_DIR=$HOME/disk/store
        token=$(amp-token -q get); echo \"get $? ${#token}\"
        amp-token -q exec -- echo started
        amp-token -q hubs --json | grep -c '\"id\"'
        amp-token -q doctor >/dev/null; echo \"doctor $?\"
        test ! -e thawed; echo \"in time $?\"
        kill $watchdog; fsfreeze -u disk; while ! umount disk 2>/dev/null; do sleep 0.1; done";
    let result = CommandResult::of(&mut env.shell(&format!("unshare -m sh -c '{}'", script.replace('\'', "'\\''"))));
    if result.status == Some(99) {
        eprintln!("SKIPPED: this machine has no loop devices");
        return;
    }
    let lines: Vec<_> = result.stdout.lines().collect();
    assert_eq!(lines[0], "stored 0", "{}", result.stderr);
    assert!(lines[1].starts_with("get 0 1"), "{} {}", result.stdout, result.stderr);
    assert_eq!(lines[2..], ["started", "2", "doctor 6", "in time 0"], "{}", result.stderr);
}

/// A file server that is gone, imitated by FUSE: not even reading or opening a file ends, although the kernel knows the
/// names and attributes. A watchdog ends the server, and with it all that wait for it, or a failure would never end.
#[test]
fn a_file_server_that_is_gone_keeps_no_caller_waiting() {
    if !is_root() || !succeeds("unshare -m true && test -w /dev/fuse") || !require_tool("python3") {
        return;
    }
    let env = TestEnv::new();
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/silent_file_system.py");
    let script = format!(
        "cd \"$HOME\"; mkdir served; python3 -B {server} served stop >mounted 2>&1 & server=$!
        while test ! -s mounted; do sleep 0.01; done; grep -q ^mounted mounted || exit 99
        (sleep 40 && touch late && kill -9 $server) >/dev/null 2>&1 & watchdog=$!
        export AMPLIENCE_STORE_DIR=$HOME/served/store AMPLIENCE_TIMEOUT_MS=800
        stat served/store >stat; amp-token -q get | wc -c
        touch stop
        amp-token -q get | wc -c
        AMPLIENCE_STORE_DIR=$HOME/served/other amp-token -q get | wc -c
        XDG_CONFIG_HOME=$HOME/served AMPLIENCE_PROFILE=x amp-token -q status >status 2>&1; echo \"status $?\"
        test ! -e late; echo \"in time $?\"
        kill $watchdog; kill -9 $server; umount -l served"
    );
    let result = CommandResult::of(&mut env.shell(&format!("unshare -m sh -c '{}'", script.replace('\'', "'\\''"))));
    if result.status == Some(99) {
        report_skipped("FUSE");
        return;
    }
    let lines: Vec<_> = result.stdout.lines().collect();
    let [answered, silent, another, status, in_time] = lines[..] else { panic!("{} {}", result.stdout, result.stderr) };
    assert!([silent, another].iter().all(|length| *length == answered) && answered.len() == 4, "{lines:?}");
    assert_eq!(
        [status, in_time],
        ["status 4", "in time 0"],
        "{}",
        fs::read_to_string(env.home.join("status")).unwrap()
    );
}

/// Starting a thread takes longer than reading a token from memory, and starting a process longer still.
#[test]
fn a_token_in_memory_takes_no_thread_and_no_second_process() {
    if !require_tool("strace") {
        return;
    }
    // A kernel before 5.12 does not have the call, and a container may forbid it.
    let has_calls = openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::CACHED).is_ok();
    if !has_calls || !succeeds("test \"$(stat -f -c %T /dev/shm)\" = tmpfs") {
        report_skipped("/dev/shm on Linux 5.12");
        return;
    }
    let env = TestEnv::new();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let traced = |arguments: &str, set: &[(&str, &str)]| {
        let line = format!("strace -f -qq -e trace=clone,clone3,fork,vfork -o calls amp-token {arguments}");
        let mut command = env.shell(&line);
        command.current_dir(&env.home).env_remove("AMPLIENCE_STORE_DIR").env("XDG_RUNTIME_DIR", memory.path());
        command.envs(set.iter().copied());
        let output = CommandResult::of(&mut command).stdout_ok();
        (output, fs::read_to_string(env.home.join("calls")).unwrap())
    };
    // To find that there is none, takes a process and threads.
    let (token, calls) = traced("get", &[]);
    assert!(calls.contains("fork(") || calls.contains("clone("), "{calls}");
    let store = memory.path().join("amp-token");
    for set in [vec![], vec![("AMPLIENCE_STORE_DIR", store.to_str().unwrap())]] {
        assert_eq!(traced("get", &set), (token.clone(), String::new()));
        assert_eq!(traced("exec -- printenv AMPLIENCE_ACCESS_TOKEN", &set), (token.clone(), String::new()));
    }
    let personal = "amp_pat_abcdefghijklmnopqrstuvwxyz";
    let set = [("AMPLIENCE_PAT", personal), ("AMPLIENCE_CLIENT_ID", ""), ("AMPLIENCE_CLIENT_SECRET", "")];
    assert_eq!(traced("get", &set), (format!("{personal}\n"), String::new()));
    assert_eq!(env.emulator.stats().token_requests, 1);
}
