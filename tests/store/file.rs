//! The store of one machine.

use crate::support::{
    LONG, Process, Settings, TestStore, command, copy_for_every_user, entry, entry_file, files, is_held, is_root,
    require_tool, temp_dir,
};
use amp_emulator::Emulator;
use amp_token::config::credentials::Credentials;
use amp_token::net::transport::{Request, Response};
use amp_token::store::{Entry, LockResult};
use amp_token::sys::clock::{Clock, ManualClock};
use amp_token::token::cache::TokenCache;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// How many processes are meant by "many".
const MANY: usize = 64;

fn emulator() -> Emulator {
    Emulator::builder().start().unwrap()
}

/// The process that the emulator's first request came from.
fn leader(emulator: &Emulator) -> u32 {
    let request = emulator.requests().into_iter().next().unwrap();
    let agent = request.header("user-agent").unwrap();
    agent.split_once("process-").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn many_processes_make_one_request() {
    let (emulator, directory) = (emulator(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    let pause = emulator.pause_token_requests();
    let mut processes: Vec<_> = (0..MANY).map(|_| Process::start("get", &settings)).collect();
    assert!(emulator.wait_for_token_requests(1, LONG));
    pause.release();
    let tokens: BTreeSet<_> = processes.iter_mut().map(|process| process.expect_line("token ")).collect();
    assert_eq!((emulator.stats().token_requests, tokens.len()), (1, 1));
    assert_eq!(files(&directory, ".tmp").len(), 0);
}

#[test]
fn a_leader_that_is_killed_costs_one_more_request() {
    let (emulator, directory) = (emulator(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    let pause = emulator.pause_token_requests();
    let mut processes: Vec<_> = (0..MANY).map(|_| Process::start("get", &settings)).collect();
    assert!(emulator.wait_for_token_requests(1, LONG));
    let leader = leader(&emulator);
    let mut leader = processes.remove(processes.iter().position(|process| process.id() == leader).unwrap());
    leader.signal(libc::SIGKILL);
    assert!(!leader.wait_success());
    pause.release();
    // Each of them fails by itself if it had to wait for longer than its own time.
    let tokens: BTreeSet<_> = processes.iter_mut().map(|process| process.expect_line("token ")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(emulator.stats().token_requests <= 2, "{:?}", emulator.stats());
}

#[test]
fn a_leader_that_is_stopped_is_not_waited_for() {
    let (emulator, directory) = (emulator(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path()).with("timeout_ms", "6000");
    let pause = emulator.pause_token_requests();
    let mut leader = Process::start("get", &settings);
    assert!(emulator.wait_for_token_requests(1, LONG));
    leader.signal(libc::SIGSTOP);
    pause.release();
    // These wait for nearly all of their time. One of them asks by itself then, and the others get its token.
    let mut others: Vec<_> = (0..4).map(|_| Process::start("get", &settings)).collect();
    for other in &mut others {
        other.expect_line("token ");
    }
    leader.signal(libc::SIGCONT);
    assert!(leader.wait_success());
    Process::start("get", &settings).expect_line("token ");
}

#[test]
fn a_warm_store_needs_no_network() {
    if !require_tool("strace") {
        return;
    }
    let (emulator, directory) = (emulator(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    let sockets = || {
        let trace = directory.path().join("trace");
        let program = std::env::current_exe().unwrap();
        let arguments = ["-f", "-e", "trace=socket,connect", "-o", trace.to_str().unwrap(), program.to_str().unwrap()];
        let mut traced = command("strace", &arguments, "get", &settings);
        let mut process = Process::run(&mut traced);
        process.expect_line("token ");
        assert!(process.wait_success());
        let calls = fs::read_to_string(&trace).unwrap();
        fs::remove_file(trace).unwrap();
        calls.lines().filter(|line| line.contains("socket(") || line.contains("connect(")).count()
    };
    assert!(sockets() >= 2, "a cold one does, and strace shows it");
    assert_eq!(sockets(), 0);
    assert_eq!(emulator.stats().token_requests, 1);
}

/// A process that holds the lock or has held it, and a child of it, in such a role.
struct Holder {
    process: Process,
    child: libc::pid_t,
    store: TestStore,
    _directory: TempDir,
}

impl Holder {
    fn start(role: &str) -> Self {
        let directory = temp_dir();
        let settings = Settings::dummy().with_file_store(directory.path());
        let mut process = Process::start(role, &settings);
        let child = process.expect_line("child ").parse().unwrap();
        Holder { process, child, store: settings.store().0, _directory: directory }
    }

    fn is_killed(&mut self) {
        self.process.signal(libc::SIGKILL);
        assert!(!self.process.wait_success());
    }

    fn signal_child(&self, signal: libc::c_int) {
        // SAFETY: it touches no memory. The child waits for the end of the test, so the number is its own.
        assert_eq!(unsafe { libc::kill(self.child, signal) }, 0, "the child lives");
    }
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    for role in ["lock, fork and drop", "lock and execute"] {
        let mut holder = Holder::start(role);
        assert!(matches!(holder.store.lock(Duration::ZERO), LockResult::Busy), "{role}");
        holder.is_killed();
        assert!(is_held(&holder.store.lock(Duration::ZERO)), "{role}");
        holder.signal_child(0);
    }
}

#[test]
fn a_child_keeps_the_lock_of_a_killed_process_until_it_ends() {
    let mut holder = Holder::start("lock and fork");
    holder.is_killed();
    assert!(matches!(holder.store.lock(Duration::ZERO), LockResult::Busy));
    holder.signal_child(libc::SIGKILL);
    assert!(is_held(&holder.store.lock(LONG)));
}

#[test]
fn a_lock_that_is_given_up_is_free_although_a_child_has_inherited_it() {
    let mut holder = Holder::start("lock, fork and unlock");
    assert!(is_held(&holder.store.lock(Duration::ZERO)));
    holder.is_killed();
    holder.signal_child(0);
}

#[test]
fn a_forked_child_keeps_what_its_parent_knew() {
    let (emulator, directory) = (Emulator::builder().tls(true).start().unwrap(), temp_dir());
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let settings = Settings::default()
        .with("auth_url", &emulator.url())
        .with("client_id", &emulator.client_id())
        .with("client_secret_file", &file("secret", emulator.client_secret().as_bytes()))
        .with("ca_file", &file("ca.pem", &fs::read(emulator.ca_file()).unwrap()))
        .with_file_store(&directory.path().join("store"));
    let mut process = Process::start("fork and remove the files", &settings);
    let token = process.expect_line("token ");
    assert!(process.wait_success());
    assert_eq!(emulator.stats().token_requests, 2);
    // It has shared the token.
    let secret = emulator.client_secret();
    let settings = Settings::of(&emulator).with("client_secret", &secret);
    assert_eq!(settings.with_file_store(&directory.path().join("store")).store().0.token(), Some(token));
}

#[test]
fn threads_of_one_process_exclude_each_other_too() {
    let directory = temp_dir();
    let settings = Settings::dummy();
    symlink(directory.path(), directory.path().join("link")).unwrap();
    fs::create_dir(directory.path().join("store")).unwrap();
    fs::set_permissions(directory.path().join("store"), fs::Permissions::from_mode(0o700)).unwrap();
    let [one, two, three, four] = ["store", "store", "./store/", "link/store"]
        .map(|path| settings.clone().with_file_store(&directory.path().join(path)).store().0);
    let held = one.lock(Duration::ZERO);
    assert!(is_held(&held));
    assert!(matches!(two.lock(Duration::from_millis(20)), LockResult::Busy));
    // However the path is written.
    assert!(matches!(three.lock(Duration::ZERO), LockResult::Busy));
    assert!(matches!(four.lock(Duration::ZERO), LockResult::Busy));
    // Trying took nothing away from the holder.
    let settings = settings.with_file_store(&directory.path().join("store"));
    assert_eq!(Process::start("lock", &settings).expect_line(""), "not held");
    drop(held);
    assert!(is_held(&two.lock(Duration::ZERO)));
    assert_eq!(Process::start("lock", &settings).expect_line(""), "held");
}

#[test]
fn two_caches_of_one_process_make_one_request() {
    let (emulator, directory) = (emulator(), temp_dir());
    let settings = Settings::of(&emulator).with_file_store(directory.path());
    let pause = emulator.pause_token_requests();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| settings.cache().0.get().unwrap());
        }
        assert!(emulator.wait_for_token_requests(1, LONG));
        pause.release();
    });
    assert_eq!(emulator.stats().token_requests, 1);
}

#[test]
fn only_that_token_is_removed() {
    let directory = temp_dir();
    let (store, lines) = Settings::dummy().with_file_store(directory.path()).store();
    store.remove("none");
    store.save(&entry("kept"));
    store.remove("another");
    assert_eq!(store.token().as_deref(), Some("kept"));
    // Another process is about to replace it.
    let held = store.lock(Duration::ZERO);
    store.remove("kept");
    assert!(store.load().is_some());
    drop(held);
    store.remove("kept");
    assert_eq!(store.load(), None);
    assert_eq!(lines.warnings(), Vec::<String>::new());
}

#[test]
fn one_process_refreshes_while_the_others_use_the_old_token() {
    // In virtual time: two caches that stand for two processes, and a service that looks at what the
    // other one does while it is asked.
    let directory = temp_dir();
    let manual = ManualClock::new(1);
    let asked = Arc::new(AtomicU32::new(0));
    let other: Arc<Mutex<Option<TokenCache>>> = Arc::default();
    let settings = Settings::dummy().with_file_store(directory.path());
    let make = |watched: bool| {
        let (mut config, _) = settings.config();
        config.clock = Clock::Manual(manual.clone());
        let (asked, other) = (asked.clone(), other.clone());
        config.transport = Some(Arc::new(move |_: &Request, _: Duration| {
            let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
            if watched && let Some(other) = &*other.lock().unwrap() {
                assert_eq!(other.get().unwrap().value(), "token-1");
            }
            let body = format!(r#"{{"access_token":"token-{number}","expires_in":300}}"#);
            let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
            Ok(Response { status: 200, headers, body: body.into_bytes().into() })
        }));
        TokenCache::new(&config).unwrap()
    };
    let first = make(true);
    assert_eq!(first.get().unwrap().value(), "token-1");
    *other.lock().unwrap() = Some(make(false));
    let others_token = || other.lock().unwrap().as_ref().unwrap().get().unwrap().value().to_owned();
    assert_eq!(others_token(), "token-1");
    manual.advance(Duration::from_secs(250));
    assert_eq!(first.get().unwrap().value(), "token-2");
    // The other one looks again after a while, and finds it.
    manual.advance(Duration::from_secs(20));
    assert_eq!(others_token(), "token-2");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_storm_of_kills_leaves_nothing_broken() {
    let directory = temp_dir();
    let settings = Settings::dummy().with_file_store(directory.path());
    Process::start("storm", &settings).expect_line("survived");
    let (store, lines) = settings.store();
    assert!(is_held(&store.lock(LONG)));
    let litter = files(&directory, ".tmp");
    println!("{} unfinished files were left behind", litter.len());
    litter.iter().for_each(|file| make_old(file));
    store.save(&entry("last"));
    assert_eq!(store.token().as_deref(), Some("last"));
    assert_eq!(files(&directory, "").len(), 2, "the entry and the lock");
    assert_eq!(lines.warnings(), Vec::<String>::new());
}

/// Sets the time of a file's last change to some minutes ago. A symbolic link is not followed.
fn make_old(path: &std::path::Path) {
    assert!(Command::new("touch").args(["-h", "-d", "5 minutes ago"]).arg(path).status().unwrap().success());
}

#[test]
fn only_stale_files_of_this_entry_are_cleaned_up() {
    let directory = temp_dir();
    let (store, lines) = Settings::dummy().with_file_store(directory.path()).store();
    store.save(&entry("first"));
    let name = entry_file(&directory).file_name().unwrap().to_str().unwrap().to_owned();
    let path = |file: &str| directory.path().join(file);
    let number = "0123456789abcdef";
    let stale = path(&format!("{name}.{number}.tmp"));
    fs::write(&stale, "left behind by a writer that was killed").unwrap();
    make_old(&stale);
    // Everything else stays: files of other programs and of other entries, and what the store cannot
    // have made itself.
    let other = format!("{}{}", if name.starts_with('0') { '1' } else { '0' }, &name[1..]);
    let mut kept = Vec::new();
    for file in [
        "report.tmp".to_owned(),
        ".tmp".to_owned(),
        name.clone() + ".tmp",
        format!("{name}..tmp"),
        format!("{name}.{number}"),
        format!("{name}.{number}.tmp~"),
        format!("{name}.{number}.TMP"),
        format!("{name}{number}.tmp"),
        format!("{name}.{}.tmp", &number[1..]),
        format!("{name}.{number}0.tmp"),
        format!("{name}.{}.tmp", number.to_uppercase()),
        format!("{name}.g{}.tmp", &number[1..]),
        format!("{name}.{number}.{number}.tmp"),
        format!("x{name}.{number}.tmp"),
        format!("{}.{number}.tmp", name.to_uppercase()),
        format!("{}.{number}.tmp", &name[1..]),
        format!("{other}.{number}.tmp"),
    ] {
        fs::write(path(&file), "not the store's").unwrap();
        kept.push(path(&file));
    }
    // Of the right name, but no regular files.
    let special = |digit: char| path(&format!("{name}.{}.tmp", digit.to_string().repeat(16)));
    fs::create_dir(special('1')).unwrap();
    symlink(path("report.tmp"), special('2')).unwrap();
    assert!(Command::new("mkfifo").arg(special('3')).status().unwrap().success());
    kept.extend(['1', '2', '3'].map(special));
    // A regular file of the right name that another user owns.
    if is_root() {
        fs::write(special('4'), "another user's").unwrap();
        std::os::unix::fs::chown(special('4'), Some(65534), None).unwrap();
        kept.push(special('4'));
    }
    kept.iter().for_each(|file| make_old(file));
    // This one may still be written.
    let young = special('5');
    fs::write(&young, "x").unwrap();
    kept.push(young);

    store.save(&entry("second"));
    let lost: Vec<_> = kept.iter().filter(|file| fs::symlink_metadata(file).is_err()).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert!(!stale.exists());
    assert_eq!(lines.warnings(), Vec::<String>::new());
}

#[test]
fn a_damaged_entry_is_no_token() {
    // What `seal` promises of bytes, as files: every length, and a flip in every byte.
    let directory = temp_dir();
    let (store, _) = Settings::dummy().with_file_store(directory.path()).store();
    store.save(&entry("token"));
    let path = entry_file(&directory);
    let sealed = fs::read(&path).unwrap();
    for length in 0..sealed.len() {
        fs::write(&path, &sealed[..length]).unwrap();
        assert_eq!(store.load(), None);
    }
    for position in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[position] ^= 0x10;
        fs::write(&path, changed).unwrap();
        assert_eq!(store.load(), None);
    }
    fs::write(&path, vec![1; 1_000_000]).unwrap();
    assert_eq!(store.load(), None);
    fs::write(&path, sealed).unwrap();
    assert!(store.load().is_some());
}

/// A process gets tokens although its store is broken, and reports the cause once.
fn works_without(settings: &Settings, mode: &str, reported: &str, change: impl Fn(&mut Command)) {
    program_works_without(&std::env::current_exe().unwrap(), settings, mode, reported, change);
}

fn program_works_without(
    program: &Path,
    settings: &Settings,
    mode: &str,
    reported: &str,
    change: impl Fn(&mut Command),
) {
    let mut command = command(program.to_str().unwrap(), &[], mode, settings);
    command.env("AMP_STORE_TEST_TWICE", "");
    change(&mut command);
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let warnings: Vec<_> = printed.lines().filter(|line| line.starts_with("child: warning store: ")).collect();
    assert!(printed.contains("child: token "), "{reported}: {printed}");
    assert!(warnings.len() == 1 && warnings[0].contains(reported), "{reported}: {printed}");
}

#[test]
fn a_broken_store_costs_one_warning() {
    let emulator = emulator();
    let unstored = Settings::of(&emulator);
    let broken = |says: &str, prepare: &dyn Fn(&TempDir, &Settings)| {
        let directory = temp_dir();
        let settings = unstored.clone().with_file_store(&directory.path().join("store"));
        prepare(&directory, &settings);
        works_without(&settings, "get", says, |_| {});
    };
    // The name of the entry that belongs there.
    let warm = |settings: &Settings| {
        settings.cache().0.get().unwrap();
    };
    let store = |directory: &TempDir| directory.path().join("store");
    let entry = |directory: &TempDir| {
        let mut files: Vec<_> = fs::read_dir(store(directory)).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_none());
        files.remove(0)
    };
    broken("an entry is damaged", &|directory, settings| {
        warm(settings);
        fs::write(entry(directory), "garbage").unwrap();
    });
    broken("an entry is damaged", &|directory, settings| {
        let other = Settings::dummy().with_file_store(&directory.path().join("other"));
        other.store().0.save(&self::entry("theirs"));
        let theirs = fs::read_dir(directory.path().join("other")).unwrap().next().unwrap().unwrap().path();
        warm(settings);
        fs::copy(theirs, entry(directory)).unwrap();
    });
    broken("created later than the time of this machine's clock", &|_, settings| {
        let clock = ManualClock::new(1);
        clock.advance(Duration::from_secs(100 * 365 * 24 * 60 * 60));
        let (mut config, _) = settings.config();
        config.clock = Clock::Manual(clock.clone());
        let text = |name| config.text(name).unwrap();
        let (id, secret) = (text("client_id").to_owned(), text("client_secret").into());
        let store = TestStore::open(config.options().unwrap(), &Credentials::Client { id, secret });
        store.save(&Entry { issued: clock.now(), ..self::entry("early") });
    });
    broken("cannot open ", &|directory, settings| {
        warm(settings);
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(entry(directory), &elsewhere).unwrap();
        let name = fs::read_dir(store(directory)).unwrap().next().unwrap().unwrap().path().with_extension("");
        symlink(elsewhere, name).unwrap();
    });
    broken("is not a regular file of this user", &|directory, settings| {
        warm(settings);
        let entry = entry(directory);
        fs::remove_file(&entry).unwrap();
        // Opening this one would wait for a writer that never comes.
        assert!(Command::new("mkfifo").arg(entry).status().unwrap().success());
    });
    broken("or is a symbolic link to one", &|directory, _| {
        let real = directory.path().join("real");
        fs::create_dir(&real).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(real, store(directory)).unwrap();
    });
    broken("is not a directory", &|directory, _| fs::write(store(directory), "").unwrap());
    broken("is accessible to other users", &|directory, _| {
        fs::create_dir(store(directory)).unwrap();
        fs::set_permissions(store(directory), fs::Permissions::from_mode(0o750)).unwrap();
    });
    broken("cannot open ", &|directory, settings| {
        // A directory in place of the lock file.
        warm(settings);
        let lock = entry(directory).with_extension("lock");
        fs::remove_file(entry(directory)).unwrap();
        fs::remove_file(&lock).unwrap();
        fs::create_dir(lock).unwrap();
    });
}

#[test]
fn a_store_that_cannot_be_written_costs_one_warning() {
    let (emulator, directory) = (emulator(), temp_dir());
    let unstored = Settings::of(&emulator);
    let full = unstored.clone().with_file_store(directory.path());
    works_without(&full, "get, and write nothing", ": File too large", |_| {});
    assert_eq!(files(&directory, ".tmp").len(), 0, "what could not be finished is removed");

    // No user, not even root, can create a directory there.
    let nowhere = unstored.clone().with("store", "file").with("store_dir", "/proc/amp-token");
    works_without(&nowhere, "get", "cannot create ", |_| {});
    let homeless = unstored.clone().with("store", "file");
    let programs = temp_dir();
    let program = copy_for_every_user(&std::env::current_exe().unwrap(), programs.path());
    program_works_without(&program, &homeless, "get", "set store_dir", |command| {
        command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CACHE_HOME").env("HOME", "/dev/null");
        if is_root() {
            // The user database does not know this one.
            command.uid(3_999_999_999);
        }
    });

    let closed = temp_dir();
    let settings = unstored.with_file_store(closed.path());
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if is_root() {
        // Root may write anywhere, so this needs another user; and root does not use that user's directory.
        std::os::unix::fs::chown(closed.path(), Some(65534), None).unwrap();
        works_without(&settings, "get", "belongs to another user", |_| {});
        works_without(&settings, "get as another user", "Permission denied", |_| {});
    } else {
        works_without(&settings, "get", "Permission denied", |_| {});
        let roots = Settings::of(&emulator).with_file_store("/usr".as_ref());
        works_without(&roots, "get", "belongs to another user", |_| {});
    }
}

#[test]
fn a_superuser_creates_nothing_in_a_directory_of_another_user() {
    if !is_root() {
        return;
    }
    let (emulator, directory) = (emulator(), temp_dir());
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), None).unwrap();
    for below in ["store", ".cache/store", "missing/deeper/store"] {
        let settings = Settings::of(&emulator).with_file_store(&home.join(below));
        works_without(&settings, "get", "belongs to another user; create it first", |_| {});
    }
    // Nor where a symbolic link of that user leads.
    fs::create_dir(directory.path().join("own")).unwrap();
    symlink("own", directory.path().join("link")).unwrap();
    std::os::unix::fs::lchown(directory.path().join("link"), Some(65534), None).unwrap();
    let linked = Settings::of(&emulator).with_file_store(&directory.path().join("link/store"));
    works_without(&linked, "get", "link belongs to another user; create it first", |_| {});
    for directory in [home, directory.path().join("own")] {
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
    }

    // In a directory that is open to all and sticky, but the superuser's, it does; and one is used that is there.
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let theirs = directory.path().join("theirs");
    fs::create_dir_all(theirs.join("store")).unwrap();
    fs::set_permissions(theirs.join("store"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), None).unwrap();
    for directory in [shared.join("deeper/store"), theirs.join("store")] {
        let (store, lines) = Settings::dummy().with_file_store(&directory).store();
        store.save(&entry("token"));
        assert!(store.load().is_some());
        assert_eq!(lines.warnings(), Vec::<String>::new());
    }
}

#[test]
fn the_directory_and_its_files_are_closed_to_others() {
    let directory = temp_dir();
    let inner = directory.path().join("a/b");
    let (store, _) = Settings::dummy().with_file_store(&inner).store();
    let held = store.lock(Duration::ZERO);
    store.save(&entry("token"));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    let files: Vec<_> = fs::read_dir(&inner).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "the lock, the entry, and the file for the next one");
    assert!(files.iter().all(|file| mode(file) == 0o600));
    let content = fs::read(files.iter().find(|file| file.extension().is_none()).unwrap()).unwrap();
    assert!(!content.windows(5).any(|window| window == b"token"));
    drop(held);
    assert_eq!(fs::read_dir(&inner).unwrap().count(), 2);
}

#[test]
fn a_link_at_the_end_of_the_path_is_not_followed() {
    let directory = temp_dir();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
    symlink("real", directory.path().join("link")).unwrap();
    symlink("missing", directory.path().join("dangling")).unwrap();
    let store = |path: &str| Settings::dummy().with_file_store(&directory.path().join(path)).store();
    for path in ["link", "link/", "link//", "link/.", "link/./", "dangling", "dangling/", "dangling/deeper"] {
        let (store, lines) = store(path);
        store.save(&entry("token"));
        assert_eq!(store.load(), None, "{path}");
        assert!(!is_held(&store.lock(Duration::ZERO)), "{path}");
        assert_eq!(lines.warnings().len(), 1, "{path}");
    }
    assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
    assert_eq!(files(&directory, "").len(), 3);
    // On the way to the directory, a link is followed.
    for path in ["real/", "link/deeper/", "link/much/deeper/./"] {
        let (store, lines) = store(path);
        store.save(&entry("token"));
        assert!(store.load().is_some() && is_held(&store.lock(Duration::ZERO)), "{path}");
        assert_eq!(lines.warnings(), Vec::<String>::new());
    }
    assert!(real.join("much/deeper").is_dir());
}

#[test]
fn a_short_secret_is_not_used_as_a_key() {
    let (mut config, lines) = Settings::default().with("client_id", "id").with("client_secret", "hunter2").config();
    config.set("store", Some("file")).unwrap();
    TokenCache::new(&config).unwrap();
    assert!(lines.warnings()[0].contains("too short"), "{:?}", lines.warnings());
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_build_without_redis_reports_how_to_get_one() {
    let (config, _) = Settings::dummy().with("store", "redis://:sesame@cache").config();
    let error = TokenCache::new(&config).err().unwrap();
    assert_eq!(error.kind(), amp_token::error::Kind::Config);
    assert!(error.to_string().contains("--features redis") && !error.to_string().contains("sesame"), "{error}");
}
